"""User data: all that a machine needs to become a node without a login by anybody.

One cloud-boothook script, which cloud-init runs as soon as it has read the user data: it unpacks files and starts
moyai-bootstrap.service beside the minutes of other start-up work. Always holds: secrets of the control plane are in it only
encrypted; workers get a token that lives an hour and the authority's certificate; running it again does nothing.
Source of the facts: kubeadm v1beta4, cloud-init's boothook handler, CNI 1.0.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import secrets
import tarfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from moyai.bootstrap import api_server, kubeadm, pki
from moyai.bootstrap.pki import Pki, seal
from moyai.core import yamltext
from moyai.core.errors import Terminal
from moyai.core.ids import RESTORED
from moyai.kube.resources import KUBE_SYSTEM
from moyai.plan.network_policy import boot_gate
from moyai.plan.nodes import PlannedNode, virtual_address
from moyai.plan.pod_network import pod_network_of
from moyai.plan.rules import API_PORT
from moyai.spec.model import Cluster, NodePool

DISCOVERY = "/etc/moyai/discovery.conf"
#: keepalived's priority of the first control plane; it decides only where several ask for the address at once.
_HIGHEST_PRIORITY = 100
_INIT = "kubeadm init --config /etc/moyai/kubeadm.yaml --skip-token-print --skip-certificate-key-print"
_VIRTUAL_UNITS = ("etc/systemd/system/moyai-vip.service", "etc/systemd/system/moyai-peers.service")
TAKES_KEY = "usr/local/lib/moyai/unsealing-key"


class UserDataTooLarge(Terminal):
    """``size``: bytes, as a cloud counts them. A plan is refused before it comes to this, see ``bootstrap.sizes``."""

    def __init__(self, node: str, size: int, *, limit: int) -> None:
        super().__init__(
            f"user data of node {node} would have {size} bytes, the cloud takes {limit}",
            hint="fewer labels and taints in its pool",
        )
        self.size = size


@dataclass(frozen=True)
class NodeFacts:
    """The facts for both kinds of nodes. ``api_address``: at which nodes reach the API. ``founder``: whether the machine begins
    the cluster; ``peers``: addresses of the other control planes. ``limit``: bytes of user data that the cloud takes, counted
    after encoding. ``mtu``: of the node network. ``mirror``: URL of a registry mirror, empty for none.

    ``restores``: when the backup was made that the cluster begins with, empty for a new cluster. ``living``: the nodes whose
    machines run already. ``rehearses``: the restore is only tried. ``emulated``: the minor version as which a control plane
    behaves, empty for its own.

    ``own_address``: the machine gives itself its address. ``tells_range``: its Node says its pod range, because nobody else
    does."""

    cluster: Cluster
    node: PlannedNode
    api_address: str
    pki: Pki = field(repr=False)
    token: str = field(repr=False)
    limit: int
    pool: NodePool | None = None
    mtu: int = 1500
    mirror: str = ""
    founder: bool = False
    peers: tuple[str, ...] = ()
    restores: str = ""
    living: tuple[str, ...] = ()
    emulated: str = ""
    rehearses: bool = False
    own_address: bool = False
    tells_range: bool = False


def new_token() -> str:
    """A bootstrap token: six and sixteen characters of [a-z0-9]."""
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    pick = [secrets.choice(alphabet) for _ in range(22)]
    return f"{''.join(pick[:6])}.{''.join(pick[6:])}"


def control_plane(
    facts: NodeFacts,
    *,
    api_names: Sequence[str],
    addons: Mapping[str, str],
    late: Collection[str] = (),
    key: str,
    encryption_key: str,
    image_tags: Mapping[str, str] | None = None,
) -> str:
    """User data of a control plane: the one that begins a cluster, or one that joins others. ``key``: opens the encrypted
    part. ``encryption_key``: Secrets are stored with it, empty where the spec wants them as they are.

    ``api_names``: names and addresses that lead to the API from outside. ``addons``: name → manifests, with their secrets, in
    the order in which they are applied; those in ``late`` are applied last, once the cluster itself runs.
    """
    sealed = {f"etc/kubernetes/pki/{name}": content for name, content in facts.pki.files.items()}
    init = kubeadm.InitFacts(
        facts.cluster,
        facts.node,
        tuple(api_names),
        facts.token,
        image_tags or {},
        api_address=facts.api_address,
        emulated=facts.emulated,
        signing=f"/etc/kubernetes/pki/{pki.SIGNING}" if pki.SIGNING in facts.pki.files else "",
        tells_range=facts.tells_range,
    )
    sealed["etc/moyai/kubeadm.yaml"] = kubeadm.init_config(init).encode()
    for name, text in api_server.files(facts.cluster.spec, encryption_key=encryption_key).items():
        sealed[f"{api_server.FOLDER.lstrip('/')}/{name}"] = text.encode()
    for number, (name, manifests) in enumerate(addons.items(), 1):
        if manifests:
            folder = "late" if name in late else "early"
            sealed[f"etc/moyai/addons/{folder}/{number:02}-{name.replace(' ', '-')}.yaml"] = manifests.encode()
    if facts.restores and not facts.rehearses:
        sealed["etc/moyai/addons/early/00-restored.yaml"] = _restored(facts.restores).encode()
    if addons and facts.node.virtual:
        sealed["etc/moyai/addons/late/99-kube-proxy.yaml"] = kubeadm.kube_proxy_patch().encode()
    return _script(
        facts,
        {
            "etc/moyai/sealed": seal(tar_of(sealed, mode=0o600), key).encode(),
            "usr/local/lib/moyai/bootstrap": _data(
                "bootstrap-control-plane", ADDRESS=facts.node.address, PATIENCE=_patience(facts), MAKE=_make(facts)
            ),
            TAKES_KEY: _data("unsealing_key.py"),
            "usr/local/lib/moyai/renew-certificates": _data("renew_certificates.py"),
            "etc/systemd/system/moyai-certificates.service": _data("moyai-certificates.service"),
            "etc/systemd/system/moyai-certificates.timer": _data("moyai-certificates.timer"),
            **_patches(kubeadm.control_plane_patches(spread=bool(facts.peers))),
            **_others(facts),
        },
        units=("moyai-certificates.timer", *(("moyai-vip.service", "moyai-peers.service") if facts.node.in_turns else ())),
        # on every boot: cloud-init copies the metadata each time
        first=f"python3 -I /{TAKES_KEY} take || true\n",
    )


def _make(facts: NodeFacts) -> str:
    """What makes the machine a control plane: where no machine keeps the API's address there may be others."""
    if facts.node.virtual or facts.restores:
        return "bash /usr/local/lib/moyai/make-control-plane"
    return f'say "kubeadm init"\n{_INIT}\nsay "kubeadm init done"'


def _others(facts: NodeFacts) -> dict[str, bytes]:
    """What a control plane needs that may have others beside it, or that begins with others' data."""
    node = facts.node
    if not node.virtual and not facts.restores:
        return {}
    place = {
        "name": node.name,
        "address": node.address,
        "peers": list(facts.peers),
        "virtual": node.virtual,
        "priority": _HIGHEST_PRIORITY - node.ordinal,
    }
    founder = "yes" if facts.founder else "no"
    return {
        "etc/moyai/place.json": json.dumps(place).encode(),
        "usr/local/lib/moyai/etcd-member": _data("etcd_member.py"),
        "usr/local/lib/moyai/make-control-plane": _data(
            "make-control-plane",
            ADDRESS=node.address,
            FOUNDER=founder,
            INIT=_INIT,
            REHEARSES="yes" if facts.rehearses else "no",
        ),
        **({name: _data(name.rpartition("/")[2]) for name in _VIRTUAL_UNITS} if node.in_turns else {}),
        **(_restoring(facts) if facts.restores else {}),
    }


def _restored(made: str) -> str:
    """What tells the controllers that the cloud may have more than the cluster knows. Before they start."""
    meta = {"name": RESTORED, "namespace": KUBE_SYSTEM}
    return yamltext.dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"made": made}})


def _restoring(facts: NodeFacts) -> dict[str, bytes]:
    return {
        "etc/moyai/restore.json": json.dumps({"keep": sorted(facts.living)}).encode(),
        "usr/local/lib/moyai/restore-etcd": _data("restore_etcd.py"),
    }


def _patience(facts: NodeFacts) -> str:
    """How long late add-ons wait for the name service, which cannot run where the pod network is yet to be installed."""
    return "60s" if pod_network_of(facts.cluster.spec).ready else "1s"


def worker(facts: NodeFacts) -> str:
    """User data of a worker."""
    endpoint = f"{facts.api_address}:{API_PORT}"
    config = kubeadm.join_config(
        facts.node, facts.pool, token=facts.token, discovery_file=DISCOVERY, tells_range=facts.tells_range
    )
    return _script(
        facts,
        {
            "etc/moyai/ca.crt": facts.pki.ca,
            "etc/moyai/kubeadm.yaml": config.encode(),
            DISCOVERY.lstrip("/"): _discovery(facts, endpoint).encode(),
            "usr/local/lib/moyai/bootstrap": _data("bootstrap-worker", ENDPOINT=endpoint),
            **_patches(kubeadm.worker_patches(facts.cluster.spec.security)),
        },
    )


def _patches(patches: Mapping[str, str]) -> dict[str, bytes]:
    return {f"{kubeadm.PATCHES.lstrip('/')}/{name}": text.encode() for name, text in patches.items()}


def _discovery(facts: NodeFacts, endpoint: str) -> str:
    authority = base64.b64encode(facts.pki.ca).decode()
    return yamltext.dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "", "cluster": {"server": f"https://{endpoint}", "certificate-authority-data": authority}}],
        },
    )


def mirror_hosts(url: str) -> str:
    """containerd's hosts.toml: ask the mirror first, then the registry that the image's name means."""
    return f'[host."{url.rstrip("/")}"]\n  capabilities = ["pull", "resolve"]\n'


def _script(facts: NodeFacts, own: Mapping[str, bytes], *, units: Sequence[str] = (), first: str = "") -> str:
    """``units``: started besides those of all nodes. ``first``: commands that run on every boot, before services start."""
    pods = pod_network_of(facts.cluster.spec)
    content = {
        **{name: text.encode() for name, text in pods.files(facts.node, mtu=facts.mtu).items()},
        "etc/systemd/system/moyai-kernel.service": _data("moyai-kernel.service"),
        boot_gate.RULES: boot_gate.gate_rules(str(facts.cluster.spec.network.pod_cidr)).encode(),
        **({boot_gate.MARKER: b""} if facts.cluster.spec.network.policy else {}),
        "etc/systemd/system/moyai-network.service": _data("moyai-network.service"),
        "etc/systemd/system/moyai-policy-gate.service": _data("moyai-policy-gate.service"),
        "etc/systemd/system/moyai-bootstrap.service": _data("moyai-bootstrap.service"),
        "usr/local/lib/moyai/kernel-settings": _data("kernel-settings"),
        "usr/local/lib/moyai/patiently": _data("patiently"),
        **own,
    }
    if facts.own_address:
        length = facts.cluster.spec.network.node_cidr.prefixlen
        content["etc/systemd/system/moyai-address.service"] = _data("moyai-address.service")
        content["usr/local/lib/moyai/own-address"] = _data("own-address", ADDRESS=f"{facts.node.address}/{length}")
    if virtual_address(facts.cluster.spec):
        content["etc/systemd/system/kubelet.service.d/20-moyai-connections.conf"] = _data(
            "kubelet-connections.conf", CONNECTIONS=" ".join(f"{name}={value}" for name, value in kubeadm.CONNECTIONS.items())
        )
    if facts.mirror:
        content["etc/containerd/certs.d/_default/hosts.toml"] = mirror_hosts(facts.mirror).encode()
    packed = base64.encodebytes(tar_of(content)).decode()
    before = ("moyai-address.service",) if facts.own_address else ()
    always = (*before, "moyai-kernel.service", "moyai-network.service", "moyai-policy-gate.service", "moyai-bootstrap.service")
    started = " ".join((*always, *units))
    wants = "/etc/systemd/system/multi-user.target.wants"
    text = (
        "#cloud-boothook\n#!/bin/sh\n"
        f"# moyai: cluster {facts.cluster.name}, node {facts.node.name}\n"
        "set -e\nif [ ! -e /var/lib/moyai/unpacked ]; then\n"
        "base64 -d <<'END' | tar -xz -C /\n" + packed + "END\n"
        f"mkdir -p /var/lib/moyai {wants}\n"
        f"for unit in {started}; do ln -sfn /etc/systemd/system/$unit {wants}/$unit; done\n"
        "touch /var/lib/moyai/unpacked\nsystemctl daemon-reload\nfi\n"
        f"{first}systemctl start --no-block {started}\n"
    )
    size = encoded_size(text)
    if size > facts.limit:
        raise UserDataTooLarge(facts.node.name, size, limit=facts.limit)
    return text


def encoded_size(text: str) -> int:
    """Bytes of user data as a cloud counts them."""
    return 4 * ((len(text.encode()) + 2) // 3)


def _data(name: str, **values: str) -> bytes:
    text = (files("moyai.bootstrap") / "data" / name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text.encode()


def tar_of(content: Mapping[str, bytes], *, mode: int | None = None, modes: Mapping[str, int] | None = None) -> bytes:
    """A compressed archive of these files, owned by root; scripts may be run, what is private may not be read. ``modes``: of
    files that have their own."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in sorted(content.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = (
                (modes or {}).get(name)
                or mode
                or (0o755 if name.endswith("/bootstrap") else 0o600 if name.startswith("etc/moyai/") else 0o644)
            )
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()

"""User data: all that a machine is told, so that it becomes a node with nobody logging in.

One cloud-boothook script, which cloud-init runs as soon as it has read the user data: it unpacks files and starts
moyai-bootstrap.service, minutes of other start-up work aside. Always holds: secrets of the control plane are in it only
encrypted; workers are told a token that lives an hour and the authority's certificate; running it again does nothing.
Source of the facts: kubeadm v1beta4, cloud-init's boothook handler, CNI 1.0.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import secrets
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files

from moyai.bootstrap import kubeadm
from moyai.bootstrap.pki import Pki, seal
from moyai.core import yamltext
from moyai.core.errors import Terminal
from moyai.plan.nodes import Node
from moyai.plan.rules import API_PORT
from moyai.spec.model import Cluster, NodePool

#: What Nova takes, counted after encoding.
LIMIT = 65535
#: Name of the server metadata that holds the key to the sealed part.
KEY_METADATA = "moyai.key"
DISCOVERY = "/etc/moyai/discovery.conf"


@dataclass(frozen=True)
class NodeFacts:
    """What both kinds of nodes are told. ``mtu``: of the node network. ``mirror``: URL of a registry mirror, empty for none."""

    cluster: Cluster
    node: Node
    control_plane_address: str
    pki: Pki = field(repr=False)
    token: str = field(repr=False)
    pool: NodePool | None = None
    mtu: int = 1500
    mirror: str = ""


def new_token() -> str:
    """A bootstrap token: six and sixteen characters of [a-z0-9]."""
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    pick = [secrets.choice(alphabet) for _ in range(22)]
    return f"{''.join(pick[:6])}.{''.join(pick[6:])}"


def control_plane(
    facts: NodeFacts,
    *,
    api_address: str,
    addons: str,
    volumes: str = "",
    key: str,
    image_tags: Mapping[str, str] | None = None,
) -> str:
    """User data of a control plane. ``key``: opens the sealed part.

    ``addons``, ``volumes``: manifests, with their secrets; the latter are applied last and may be left out.
    """
    sealed = {f"etc/kubernetes/pki/{name}": content for name, content in facts.pki.files.items()}
    init = kubeadm.InitFacts(facts.cluster, facts.node, api_address, facts.token, image_tags or {})
    sealed["etc/moyai/kubeadm.yaml"] = kubeadm.init_config(init).encode()
    sealed["etc/moyai/addons.yaml"] = addons.encode()
    if volumes:
        sealed["etc/moyai/volumes.yaml"] = volumes.encode()
    return _script(
        facts,
        {
            "etc/moyai/sealed": seal(_tar(sealed, mode=0o600), key).encode(),
            "usr/local/lib/moyai/bootstrap": _data("bootstrap-control-plane", ADDRESS=facts.node.address),
            "usr/local/lib/moyai/metadata-key": _data("metadata-key"),
            **{f"{kubeadm.PATCHES.lstrip('/')}/{name}": text.encode() for name, text in kubeadm.patches().items()},
        },
    )


def worker(facts: NodeFacts) -> str:
    """User data of a worker."""
    endpoint = f"{facts.control_plane_address}:{API_PORT}"
    config = kubeadm.join_config(facts.node, facts.pool, token=facts.token, discovery_file=DISCOVERY)
    return _script(
        facts,
        {
            "etc/moyai/ca.crt": facts.pki.ca,
            "etc/moyai/kubeadm.yaml": config.encode(),
            DISCOVERY.lstrip("/"): _discovery(facts, endpoint).encode(),
            "usr/local/lib/moyai/bootstrap": _data("bootstrap-worker", ENDPOINT=endpoint),
        },
    )


def _discovery(facts: NodeFacts, endpoint: str) -> str:
    authority = base64.b64encode(facts.pki.ca).decode()
    return yamltext.dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "", "cluster": {"server": f"https://{endpoint}", "certificate-authority-data": authority}}],
        },
    )


def masquerade(cluster: Cluster) -> str:
    """The nftables table that hides pods behind their node's address for what leaves the cluster, and only for that."""
    network = cluster.spec.network
    inside = f"{{ {network.pod_cidr}, {network.node_cidr}, {network.service_cidr} }}"
    return (
        "table ip moyai\ndelete table ip moyai\ntable ip moyai {\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat; policy accept;\n"
        f"    ip saddr {network.pod_cidr} ip daddr != {inside} counter masquerade\n"
        "  }\n}\n"
    )


def conflist(node: Node, mtu: int) -> str:
    """The node's pod network: a bridge with addresses of its own pod range; other nodes' pods are reached over the router."""
    return json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": "moyai",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": True,
                    "ipMasq": False,
                    "hairpinMode": True,
                    "mtu": mtu,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": node.pod_cidr}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "nftables"},
            ],
        },
        indent=1,
    )


def mirror_hosts(url: str) -> str:
    """containerd's hosts.toml: ask the mirror first, then the registry that the image's name means."""
    return f'[host."{url.rstrip("/")}"]\n  capabilities = ["pull", "resolve"]\n'


def _script(facts: NodeFacts, own: Mapping[str, bytes]) -> str:
    content = {
        "etc/cni/net.d/10-moyai.conflist": conflist(facts.node, facts.mtu).encode(),
        "etc/moyai/masquerade.nft": masquerade(facts.cluster).encode(),
        "etc/systemd/system/moyai-network.service": _data("moyai-network.service"),
        "etc/systemd/system/moyai-bootstrap.service": _data("moyai-bootstrap.service"),
        "usr/local/lib/moyai/patiently": _data("patiently"),
        **own,
    }
    if facts.mirror:
        content["etc/containerd/certs.d/_default/hosts.toml"] = mirror_hosts(facts.mirror).encode()
    packed = base64.encodebytes(_tar(content)).decode()
    units = "moyai-network.service moyai-bootstrap.service"
    wants = "/etc/systemd/system/multi-user.target.wants"
    text = (
        "#cloud-boothook\n#!/bin/sh\n"
        f"# moyai: cluster {facts.cluster.name}, node {facts.node.name}\n"
        "set -e\nif [ ! -e /var/lib/moyai/unpacked ]; then\n"
        "base64 -d <<'END' | tar -xz -C /\n" + packed + "END\n"
        f"mkdir -p /var/lib/moyai {wants}\n"
        f"for unit in {units}; do ln -sfn /etc/systemd/system/$unit {wants}/$unit; done\n"
        "touch /var/lib/moyai/unpacked\nsystemctl daemon-reload\nfi\n"
        f"systemctl start --no-block {units}\n"
    )
    size = len(base64.b64encode(text.encode()))
    if size > LIMIT:
        raise Terminal(
            f"user data of node {facts.node.name} would have {size} bytes, clouds take {LIMIT}",
            hint="fewer labels and taints in its pool",
        )
    return text


def _data(name: str, **values: str) -> bytes:
    text = (files("moyai.bootstrap") / "data" / name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text.encode()


def _tar(content: Mapping[str, bytes], *, mode: int | None = None) -> bytes:
    """A compressed archive of these files, owned by root; scripts may be run, what is private may not be read."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in sorted(content.items()):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mode = mode or (0o755 if name.endswith("/bootstrap") else 0o600 if name.startswith("etc/moyai/") else 0o644)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()

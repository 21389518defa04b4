"""User data of machines: complete, small, and without a readable secret."""

from __future__ import annotations

import base64
import io
import json
import secrets
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from moyai.bootstrap import kubeadm, pki, user_data
from moyai.bootstrap.api_server import new_encryption_key
from moyai.ccm import manifests as ccm
from moyai.ccm.settings import CcmConfig
from moyai.cloud.openstack import ADAPTER
from moyai.cloud.openstack.cloud_conf import GlobalConfig
from moyai.core.clock import SystemClock
from moyai.core.errors import Terminal
from moyai.csi import manifests as csi
from moyai.images import references
from moyai.linux.process import run
from moyai.plan.nodes import wanted_nodes
from moyai.plan.pod_network.node_files import rules
from moyai.spec.load import parse
from moyai.spec.model import NodePool, TaintSpec

CLUSTER = parse("spec: {nodePools: [{labels: {tier: web}, taints: [{key: a, value: b, effect: NoSchedule}]}]}")
NODES = wanted_nodes(CLUSTER, zones=("az1",), allocations={})
LIMIT = ADAPTER.user_data_limit
TOKEN = "abcdef.0123456789abcdef"
ENCRYPTION_KEY = new_encryption_key()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> pki.Pki:
    return pki.ensure(tmp_path_factory.mktemp("pki"), SystemClock())


def facts(authority: pki.Pki, number: int) -> user_data.NodeFacts:
    pool = CLUSTER.spec.node_pools[0] if number else None
    return user_data.NodeFacts(
        CLUSTER, NODES[number], NODES[0].address, authority, TOKEN, LIMIT, pool, 1450, "http://10.255.0.1:5001"
    )


def unpack(script: str) -> dict[str, bytes]:
    packed = script.partition("<<'END' | tar -xz -C /\n")[2].partition("\nEND\n")[0]
    return _files(base64.b64decode(packed))


def _files(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        return {member.name: archive.extractfile(member).read() for member in archive.getmembers()}  # type: ignore[union-attr]


def open_sealed(root: Path, files: dict[str, bytes], *, key: str) -> dict[str, bytes]:
    """What is on the machine after it has opened its sealed files: path → content."""
    for name, content in {**files, "var/lib/moyai/unsealing-key": key.encode()}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    script = root / user_data.TAKES_KEY
    run([sys.executable, "-I", script, "open"], env={"MOYAI_ROOT": str(root)})
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def documents(text: bytes) -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def test_a_worker(authority: pki.Pki) -> None:
    script = user_data.worker(facts(authority, 1))
    assert script.startswith("#cloud-boothook\n#!/bin/sh\n")
    files = unpack(script)
    join = documents(files["etc/moyai/kubeadm.yaml"])["JoinConfiguration"]
    assert join["discovery"] == {"file": {"kubeConfigPath": "/etc/moyai/discovery.conf"}, "tlsBootstrapToken": TOKEN}
    assert join["nodeRegistration"]["taints"] == [{"key": "a", "value": "b", "effect": "NoSchedule"}]
    extra = {arg["name"]: arg["value"] for arg in join["nodeRegistration"]["kubeletExtraArgs"]}
    assert extra == {"cloud-provider": "external", "node-ip": "10.8.0.11", "node-labels": "moyai.dev/pool=workers,tier=web"}
    conflist = json.loads(files["etc/cni/net.d/10-moyai.conflist"])
    bridge = conflist["plugins"][0]
    assert (bridge["mtu"], bridge["ipMasq"], bridge["ipam"]["ranges"]) == (1450, False, [[{"subnet": "10.244.1.0/24"}]])
    assert files["etc/moyai/ca.crt"] == authority.ca
    assert b"10.8.0.10:6443" in files["usr/local/lib/moyai/bootstrap"]
    assert files["etc/containerd/certs.d/_default/hosts.toml"].startswith(b'[host."http://10.255.0.1:5001"]')
    everything = b"".join(files.values())
    assert b"PRIVATE KEY" not in everything


def test_a_control_plane_holds_secrets_only_sealed(authority: pki.Pki, tmp_path: Path) -> None:
    script = user_data.control_plane(
        facts(authority, 0),
        api_names=("198.51.100.7",),
        addons={"controllers": "secret: s3cr3t-word", "volumes": "other: s3cr3t-word"},
        late=("volumes",),
        key="the key",
        encryption_key=ENCRYPTION_KEY,
        image_tags={"etcd": "3.7.3-0"},
    )
    files = unpack(script)
    everything = b"".join(files.values()) + script.encode()
    for secret in (b"PRIVATE KEY", b"s3cr3t-word", TOKEN.encode(), ENCRYPTION_KEY.encode(), authority.files["ca.key"][60:90]):
        assert secret not in everything
    # as the machine itself opens it
    sealed = open_sealed(tmp_path, files, key="the key")
    assert {f"etc/kubernetes/pki/{name}" for name in authority.files} <= set(sealed)
    assert sealed["etc/moyai/addons/early/01-controllers.yaml"] == b"secret: s3cr3t-word"
    assert sealed["etc/moyai/addons/late/02-volumes.yaml"] == b"other: s3cr3t-word"
    config = documents(sealed["etc/moyai/kubeadm.yaml"])
    cluster = config["ClusterConfiguration"]
    assert cluster["apiServer"]["certSANs"] == ["10.8.0.10", "127.0.0.1", "198.51.100.7", "localhost"]
    assert cluster["etcd"] == {"local": {"imageTag": "3.7.3-0"}}
    assert {"name": "allocate-node-cidrs", "value": "false"} in cluster["controllerManager"]["extraArgs"]
    assert config["InitConfiguration"]["bootstrapTokens"][0]["ttl"] == "1h0m0s"
    assert config["KubeProxyConfiguration"]["conntrack"] == {"maxPerCore": 0, "min": 0}


def test_too_much_is_refused(authority: pki.Pki) -> None:
    import random

    noise = random.Random(1).randbytes(60_000).hex()
    with pytest.raises(Terminal, match=r"node quickstart-control-plane-0 would have \d+ bytes, the cloud takes 65535"):
        user_data.control_plane(
            facts(authority, 0), api_names=("198.51.100.7",), addons={"noise": noise}, key="k", encryption_key="e"
        )


def test_the_real_add_ons_leave_room(authority: pki.Pki) -> None:
    config = CcmConfig(GlobalConfig("http://198.51.100.1:5000/v3", "RegionOne", "i" * 32, secrets.token_urlsafe(64)))
    addons = ccm.render(ccm.ManifestOptions("a" * 30, config, references.MOYAI, "10.244.0.0/16", api_server="10.8.0.10:6443"))
    images = {name: references.load().images[name] for name in csi.SIDECARS}
    options = csi.CsiManifestOptions(
        "a" * 30, ADAPTER.volume_names, secrets.token_urlsafe(300), references.MOYAI, images, api_server="10.8.0.10:6443"
    )
    script = user_data.control_plane(
        facts(authority, 0),
        api_names=("198.51.100.7",),
        addons={"controllers": addons, "volumes": csi.render(options)},
        key="k" * 43,
        encryption_key=ENCRYPTION_KEY,
    )
    assert len(base64.b64encode(script.encode())) < LIMIT * 2 // 3


def test_only_where_agents_open_the_gate_it_closes_at_boot(authority: pki.Pki) -> None:
    files = unpack(user_data.worker(facts(authority, 1)))
    assert b"ConditionPathExists=/var/lib/moyai/policy/gate" in files["etc/systemd/system/moyai-policy-gate.service"]
    assert b"ip daddr 10.244.0.0/16 counter drop" in files["etc/moyai/policy-gate.nft"]
    assert files["var/lib/moyai/policy/gate"] == b""
    off = parse("spec: {network: {policy: false}, nodePools: [{labels: {tier: web}}]}")
    assert "var/lib/moyai/policy/gate" not in unpack(user_data.worker(replace(facts(authority, 1), cluster=off)))


def test_no_mirror_no_file(authority: pki.Pki) -> None:
    assert not [name for name in unpack(user_data.worker(replace(facts(authority, 1), mirror=""))) if "certs.d" in name]


def test_only_what_leaves_the_cluster_is_masqueraded() -> None:
    rule = rules(CLUSTER.spec.network, masquerade=True)
    assert "ip saddr 10.244.0.0/16 ip daddr != { 10.244.0.0/16, 10.8.0.0/24, 10.96.0.0/16 }" in rule


def test_the_metadata_service_is_closed_to_pods() -> None:
    table = rules(CLUSTER.spec.network, masquerade=True)
    forward = table.partition("type filter hook forward")[2]
    assert "ip saddr 10.244.0.0/16 ip daddr 169.254.0.0/16 counter reject" in forward


def test_authorities_are_kept_and_a_half_made_pair_is_recreated(tmp_path: Path) -> None:
    first = pki.ensure(tmp_path, SystemClock())
    assert pki.ensure(tmp_path, SystemClock()).files == first.files
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "ca.crt").unlink()
    second = pki.ensure(tmp_path, SystemClock())
    certificate = x509.load_pem_x509_certificate(second.ca)
    key = pki.serialization.load_pem_private_key(second.files["ca.key"], None)
    assert certificate.public_key() == key.public_key()


def test_the_admin_certificate_is_the_authoritys(authority: pki.Pki) -> None:
    config = yaml.safe_load(pki.admin_kubeconfig(authority, name="x", server="https://198.51.100.7:6443", clock=SystemClock()))
    client = x509.load_pem_x509_certificate(base64.b64decode(config["users"][0]["user"]["client-certificate-data"]))
    client.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.ca))
    assert client.subject.rfc4514_string() == "CN=moyai-admin,O=system:masters"


def test_tokens_have_kubeadms_form() -> None:
    import re

    assert all(re.fullmatch(r"[a-z0-9]{6}\.[a-z0-9]{16}", user_data.new_token()) for _ in range(50))


def test_a_pool_cannot_take_moyais_own_labels_or_change_the_type_of_a_value() -> None:
    taints = [TaintSpec(key="a", value=value, effect="NoSchedule") for value in ("y", "1e3", "08")]
    # as in the record of an older cluster
    pool = NodePool().model_copy(update={"labels": {"moyai.dev/pool": "other", "x": "y"}, "taints": taints})
    config = kubeadm.join_config(NODES[1], pool, token=TOKEN, discovery_file="/x")
    assert "moyai.dev/pool=workers,x=y" in config
    assert all(f"value: '{value}'" in config for value in ("y", "1e3", "08")), "Go's readers take them for other types"


THREE = parse("spec: {controlPlane: {replicas: 3}, nodePools: [{}]}")


def plane(authority: pki.Pki, number: int, *, tmp_path: Path, addons: dict[str, str]) -> dict[str, bytes]:
    """All that a control plane of three finds on its machine."""
    nodes = wanted_nodes(THREE, zones=("az1",), allocations={})
    given = user_data.NodeFacts(
        *(THREE, nodes[number], "10.8.0.4", authority, TOKEN, LIMIT, None, 1450),
        founder=bool(addons),
        peers=tuple(node.address for node in nodes[:3] if node != nodes[number]),
    )
    names = ("198.51.100.7", "10.8.0.4")
    script = user_data.control_plane(given, api_names=names, addons=addons, key="the key", encryption_key=ENCRYPTION_KEY)
    return open_sealed(tmp_path, unpack(script), key="the key")


def test_a_control_plane_of_several_is_reached_at_the_virtual_address(authority: pki.Pki, tmp_path: Path) -> None:
    files = plane(authority, 0, tmp_path=tmp_path, addons={"controllers": "a: b"})
    cluster = documents(files["etc/moyai/kubeadm.yaml"])["ClusterConfiguration"]
    assert cluster["controlPlaneEndpoint"] == "10.8.0.4:6443"
    assert cluster["apiServer"]["certSANs"] == ["10.8.0.10", "10.8.0.4", "127.0.0.1", "198.51.100.7", "localhost"]
    for part in ("controllerManager", "scheduler"):
        assert {"name": "leader-elect", "value": "true"} in cluster[part]["extraArgs"]
    assert json.loads(files["etc/moyai/place.json"]) == {
        "name": "quickstart-control-plane-0",
        "address": "10.8.0.10",
        "peers": ["10.8.0.11", "10.8.0.12"],
        "virtual": "10.8.0.4",
        "priority": 100,
    }
    assert b'[ "yes" = yes ]' in files["usr/local/lib/moyai/make-control-plane"]
    assert b"HTTP2_PING_TIMEOUT_SECONDS" in files["etc/moyai/addons/late/99-kube-proxy.yaml"]
    assert b"registry.moyai.dev/kube-proxy:node" in files["etc/moyai/addons/late/99-kube-proxy.yaml"]
    assert b"podAntiAffinity" in files["etc/moyai/patches/corednsdeployment0+strategic.yaml"]
    assert b"make-control-plane" in files["usr/local/lib/moyai/bootstrap"]


def test_one_that_joins_has_all_authorities_and_no_add_ons(authority: pki.Pki, tmp_path: Path) -> None:
    files = plane(authority, 1, tmp_path=tmp_path, addons={})
    assert {f"etc/kubernetes/pki/{name}" for name in authority.files} <= set(files)
    assert not [name for name in files if "addons" in name]
    assert json.loads(files["etc/moyai/place.json"])["priority"] == 99
    # kubeadm refuses an empty one
    late = kubeadm.InitFacts(THREE, wanted_nodes(THREE, zones=("az1",), allocations={})[1], (), "", api_address="10.8.0.4")
    assert "bootstrapTokens" not in documents(kubeadm.init_config(late).encode())["InitConfiguration"]
    assert b'[ "no" = yes ]' in files["usr/local/lib/moyai/make-control-plane"]


def test_a_control_plane_behaves_as_an_older_version_where_it_is_to(authority: pki.Pki, tmp_path: Path) -> None:
    node = wanted_nodes(THREE, zones=("az1",), allocations={})[1]
    for emulated in ("1.36", ""):
        late = kubeadm.InitFacts(THREE, node, (), "", api_address="10.8.0.4", emulated=emulated)
        cluster = documents(kubeadm.init_config(late).encode())["ClusterConfiguration"]
        for part in ("apiServer", "controllerManager", "scheduler"):
            found = [one["value"] for one in cluster[part]["extraArgs"] if one["name"] == "emulated-version"]
            assert found == ([emulated] if emulated else [])


def test_a_single_control_plane_is_made_as_before_there_were_several(authority: pki.Pki, tmp_path: Path) -> None:
    script = user_data.control_plane(
        facts(authority, 0), api_names=("198.51.100.7",), addons={}, key="the key", encryption_key=ENCRYPTION_KEY
    )
    files = open_sealed(tmp_path, unpack(script), key="the key")
    cluster = documents(files["etc/moyai/kubeadm.yaml"])["ClusterConfiguration"]
    assert cluster["controlPlaneEndpoint"] == "10.8.0.10:6443"
    assert {"name": "leader-elect", "value": "false"} in cluster["scheduler"]["extraArgs"]
    added = {"etcd-member", "make-control-plane", "moyai-vip.service", "moyai-peers.service", "place.json"}
    assert not {Path(name).name for name in files} & added
    assert not [name for name in files if "kubelet.service.d" in name]
    assert b"podAntiAffinity" not in files["etc/moyai/patches/corednsdeployment0+strategic.yaml"]
    lines = files["usr/local/lib/moyai/bootstrap"].decode().splitlines()
    begin = lines.index('say "kubeadm init"')
    assert lines[begin : begin + 4] == [
        'say "kubeadm init"',
        "kubeadm init --config /etc/moyai/kubeadm.yaml --skip-token-print --skip-certificate-key-print",
        'say "kubeadm init done"',
        "wait $!",
    ]


def test_a_control_plane_that_is_restored_waits_for_etcds_data(authority: pki.Pki, tmp_path: Path) -> None:
    """Also where its API has the address of the machine: it does not begin a cluster from nothing."""
    given = replace(facts(authority, 0), founder=True, restores="2026-11-29T12:00:00+00:00", living=("b", "a"))
    names = ("198.51.100.7",)
    addons = {"controllers": "a: b"}
    script = user_data.control_plane(given, api_names=names, addons=addons, key="the key", encryption_key=ENCRYPTION_KEY)
    files = open_sealed(tmp_path, unpack(script), key="the key")
    assert json.loads(files["etc/moyai/restore.json"]) == {"keep": ["a", "b"]}
    assert b"def receive" in files["usr/local/lib/moyai/restore-etcd"]
    assert b"bash /usr/local/lib/moyai/make-control-plane" in files["usr/local/lib/moyai/bootstrap"]
    assert json.loads(files["etc/moyai/place.json"])["name"] == "quickstart-control-plane-0"
    assert not [name for name in files if "moyai-vip" in name or "moyai-peers" in name]
    early = sorted(name for name in files if "addons/early" in name)
    assert [name.rpartition("/")[2] for name in early] == ["00-restored.yaml", "01-controllers.yaml"]
    assert documents(files[early[0]])["ConfigMap"]["data"] == {"made": "2026-11-29T12:00:00+00:00"}

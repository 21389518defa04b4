"""Files on the machines of a running cluster: none holds a secret of the start any more, and root alone reads the keys."""

from __future__ import annotations

import json

from moyai.core.ids import UNSEALING_KEY
from moyai.core.paths import default_paths
from tests.e2e.conftest import SharedCluster

_PLANE = "control-plane-0"
#: Where a machine keeps settings, logs and the user data of its start; images and containers are elsewhere.
_FOLDERS = "/etc /run /root /tmp /usr/local /var/lib/cloud /var/lib/moyai /var/log /var/tmp"
#: What make-control-plane and the join of a worker read at the start: the token and the encrypted secrets.
_START = "/etc/moyai/kubeadm.yaml /etc/moyai/sealed"
_KEYS = r'find /etc/kubernetes -type f \( -name "*.key" -o -name "*.conf" -o -name encryption.yaml \)'


def _as_root(shared: SharedCluster, node: str, *, script: str, stdin: str = "") -> str:
    return shared.moyai("ssh", node, f"sudo sh -c '{script}'", stdin=stdin, timeout=120)


def _holding(shared: SharedCluster, node: str, *, text: str) -> str:
    """Files on ``node`` that contain ``text``, which goes by standard input so that no argument list holds it."""
    return _as_root(shared, node, script=f"grep -rlsaF -f - {_FOLDERS} 2>/dev/null; true", stdin=f"{text}\n")


def test_nothing_is_left_of_the_secrets_of_the_start(shared: SharedCluster) -> None:
    key = json.loads((default_paths().clusters / shared.name / "secrets.json").read_text())["key"]
    names = [node["name"] for node in json.loads(shared.moyai("status", shared.name, "--output", "json"))["nodes"]]
    assert f"{shared.name}-{_PLANE}" in names
    for name in names:
        node = name.removeprefix(f"{shared.name}-")
        assert _as_root(shared, node, script=f"ls -d {_START} 2>/dev/null; true") == "", node
        assert "/etc/hostname" in _holding(shared, node, text=name)
        assert _holding(shared, node, text=key) == "", node


def test_the_cloud_shows_no_key_of_the_start(shared: SharedCluster) -> None:
    servers = [one for one in shared.cloud.machines.servers() if one.name.startswith(shared.name)]
    assert servers
    assert [one.name for one in servers if UNSEALING_KEY in one.metadata] == []


def test_only_root_reads_the_keys_of_a_control_plane(shared: SharedCluster) -> None:
    assert "/etc/kubernetes/pki/ca.key" in _as_root(shared, _PLANE, script=_KEYS).splitlines()
    assert _as_root(shared, _PLANE, script=f"{_KEYS} -perm /077") == ""

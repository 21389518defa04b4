"""A control plane's certificates on its own machine: when they are due, and how the static pods take them up.

The decision and the restart are tested here, on real certificates and openssl; tests/cloud runs the whole with kubeadm.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

SCRIPT = files("moyai.bootstrap") / "data" / "renew_certificates.py"
YEAR = timedelta(days=365)
LEAVES = ("pki/apiserver.crt", "pki/etcd/server.crt", "controller-manager.conf")
ANNOTATION = "moyai.dev/certificates-renewed"
MARKER = "var/lib/moyai/renewing-certificates"


def certificate(*, left: timedelta, life: timedelta = YEAR) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    ends = datetime.now(UTC) + left
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(ends - life).not_valid_after(ends)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def put(root: Path, name: str, *, pem: bytes) -> None:
    file = root / "etc/kubernetes" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".conf"):
        data = base64.b64encode(pem).decode()
        file.write_text(yaml.safe_dump({"users": [{"name": "u", "user": {"client-certificate-data": data}}]}))
    else:
        file.write_bytes(pem)


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(SCRIPT), *arguments],
        env={"MOYAI_ROOT": str(root), "PATH": f"{root}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )


def check(root: Path) -> list[str]:
    found = run(root, "check")
    assert found.returncode == 0, found.stderr
    return sorted(line.removeprefix(f"{root}/etc/kubernetes/") for line in found.stdout.splitlines())


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A control plane whose leaves are new, and whose authorities are old: nothing renews them."""
    for name in ("pki/ca.crt", "pki/front-proxy-ca.crt", "pki/etcd/ca.crt"):
        put(tmp_path, name, pem=certificate(left=timedelta(days=3), life=10 * YEAR))
    for name in LEAVES:
        put(tmp_path, name, pem=certificate(left=YEAR))
    # kubelet's own: it points to a file that kubelet renews
    kubelet = {"users": [{"name": "u", "user": {"client-certificate": "/var/lib/kubelet/pki/kubelet-client-current.pem"}}]}
    (tmp_path / "etc/kubernetes/kubelet.conf").write_text(yaml.safe_dump(kubelet))
    manifests = tmp_path / "etc/kubernetes/manifests"
    manifests.mkdir()
    for name, more in (("etcd", {"annotations": {"kubeadm.kubernetes.io/x": "y"}}), ("kube-scheduler", {})):
        pod: dict[str, object] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, **more},
            "spec": {"containers": []},
        }
        (manifests / f"{name}.yaml").write_text(yaml.safe_dump(pod))
        (manifests / f"{name}.yaml").chmod(0o600)
    (tmp_path / "var/lib/moyai").mkdir(parents=True)
    (tmp_path / "var/lib/moyai/done").touch()
    return tmp_path


def manifests(root: Path) -> dict[str, dict[str, object]]:
    folder = root / "etc/kubernetes/manifests"
    return {file.name: yaml.safe_load(file.read_text())["metadata"] for file in folder.iterdir()}


def test_new_certificates_are_left_alone_and_so_are_authorities(machine: Path) -> None:
    assert check(machine) == []
    before = manifests(machine)
    # no kubeadm is found here: a renewal would fail
    assert run(machine).returncode == 0
    assert manifests(machine) == before


@pytest.mark.parametrize("name", LEAVES)
def test_each_kind_of_leaf_is_due_below_a_third(machine: Path, name: str) -> None:
    put(machine, name, pem=certificate(left=YEAR / 3 + timedelta(hours=1)))
    assert check(machine) == []
    put(machine, name, pem=certificate(left=YEAR / 3 - timedelta(hours=1)))
    assert check(machine) == [name]


def test_a_certificate_that_begins_with_its_authority_is_not_due_for_that(machine: Path) -> None:
    put(machine, LEAVES[0], pem=certificate(left=YEAR, life=9 * YEAR))
    assert check(machine) == []
    put(machine, LEAVES[0], pem=certificate(left=timedelta(days=100), life=9 * YEAR))
    assert check(machine) == [LEAVES[0]]


def test_an_ended_certificate_is_due(machine: Path) -> None:
    put(machine, LEAVES[1], pem=certificate(left=-timedelta(days=5)))
    assert check(machine) == [LEAVES[1]]


def test_nothing_happens_before_the_bootstrap_has_ended(machine: Path) -> None:
    (machine / "var/lib/moyai/done").unlink()
    put(machine, LEAVES[0], pem=certificate(left=timedelta(days=1)))
    result = run(machine)
    assert (result.returncode, result.stdout) == (0, "")


def test_a_failed_renewal_restarts_nothing_and_is_tried_again(machine: Path) -> None:
    put(machine, LEAVES[0], pem=certificate(left=timedelta(days=1)))
    before = manifests(machine)
    # PATH has no kubeadm
    assert run(machine).returncode != 0
    assert manifests(machine) == before
    assert (machine / MARKER).exists(), "the next run begins where this one ended"


def test_static_pods_are_made_again_once_each_and_keep_all_else(machine: Path) -> None:
    written: dict[str, int] = {}
    program = f"import sys; sys.argv = ['x', 'check']\n{SCRIPT.read_text()}\nrestart('2027-01-01T00:00:00Z')\n"
    for _ in range(2):
        subprocess.run([sys.executable, "-I", "-c", program], env={"MOYAI_ROOT": str(machine), **os.environ}, check=True)
        now = {name: (machine / "etc/kubernetes/manifests" / name).stat().st_ino for name in manifests(machine)}
        assert written in ({}, now), "written once"
        written = now
    found = manifests(machine)
    assert sorted(found) == ["etcd.yaml", "kube-scheduler.yaml"], "no file beside them that kubelet would read"
    assert found["etcd.yaml"]["annotations"] == {"kubeadm.kubernetes.io/x": "y", ANNOTATION: "2027-01-01T00:00:00Z"}
    assert found["kube-scheduler.yaml"] == {"name": "kube-scheduler", "annotations": {ANNOTATION: "2027-01-01T00:00:00Z"}}
    modes = {file.stat().st_mode & 0o777 for file in (machine / "etc/kubernetes/manifests").iterdir()}
    assert modes == {0o600}

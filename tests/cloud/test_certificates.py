"""kubeadm itself renews what `renew-certificates` has found due, in a folder that stands for a control plane's root."""

from __future__ import annotations

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

from moyai.bootstrap import pki
from moyai.core.clock import SystemClock
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.toolchain import Toolchain

SCRIPT = files("moyai.bootstrap") / "data" / "renew_certificates.py"
ANNOTATION = "moyai.dev/certificates-renewed"


@pytest.fixture(scope="module")
def kubeadm() -> Path:
    return Toolchain(default_paths(), Reporter()).ensure(["kubernetes"])["kubernetes"].files["kubeadm"]


@pytest.fixture
def machine(tmp_path: Path, kubeadm: Path) -> Path:
    """What `kubeadm init` leaves of certificates, configurations and manifests."""
    pki.ensure(tmp_path / "etc/kubernetes/pki", SystemClock())
    config = tmp_path / "config.yaml"
    config.write_text(
        yaml.safe_dump_all(
            [
                {
                    "apiVersion": "kubeadm.k8s.io/v1beta4",
                    "kind": "InitConfiguration",
                    "localAPIEndpoint": {"advertiseAddress": "192.0.2.10"},
                    "nodeRegistration": {"name": "plane", "criSocket": "unix:///run/none.sock"},
                },
                {
                    "apiVersion": "kubeadm.k8s.io/v1beta4",
                    "kind": "ClusterConfiguration",
                    "kubernetesVersion": "v1.37.1",
                    # nothing answers: kubeadm renews all the same
                    "controlPlaneEndpoint": "127.0.0.1:1",
                    "encryptionAlgorithm": "ECDSA-P256",
                    "apiServer": {"certSANs": ["203.0.113.9"]},
                },
            ]
        )
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kubeadm").symlink_to(kubeadm)
    inside = ["--rootfs", str(tmp_path), "--config", "/config.yaml"]
    for phase in ("certs all", "kubeconfig all", "control-plane all", "etcd local"):
        subprocess.run([kubeadm, "init", "phase", *phase.split(), *inside], check=True)
    (tmp_path / "var/lib/moyai").mkdir(parents=True)
    (tmp_path / "var/lib/moyai/done").touch()
    return tmp_path


def run(root: Path, *arguments: str) -> str:
    environment = {"MOYAI_ROOT": str(root), "PATH": f"{root}/bin:{os.environ['PATH']}"}
    command = [sys.executable, "-I", str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def serials(root: Path) -> dict[str, int]:
    folder = root / "etc/kubernetes/pki"
    found = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.crt")}
    return {name: x509.load_pem_x509_certificate(pem).serial_number for name, pem in found.items()}


def age(file: Path, authority: Path, *, days: int) -> None:
    """Put a certificate that differs only in its time into the place of one of kubeadm's: it began so many days earlier."""
    old = x509.load_pem_x509_certificate(file.read_bytes())
    key = serialization.load_pem_private_key(authority.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    past = timedelta(days=days)
    builder = x509.CertificateBuilder().subject_name(old.subject).issuer_name(old.issuer).public_key(old.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(old.not_valid_before_utc - past).not_valid_after(old.not_valid_after_utc - past)
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def test_all_certificates_are_renewed_and_all_static_pods_made_again(machine: Path) -> None:
    folder = machine / "etc/kubernetes/pki"
    assert run(machine, "check") == run(machine) == "", "all are new"
    age(folder / "apiserver.crt", folder / "ca.key", days=250)
    assert run(machine, "check").split() == [str(folder / "apiserver.crt")]
    before, names = serials(machine), names_of(folder / "apiserver.crt")
    leaves = {name for name in before if not name.endswith("ca.crt")}
    assert len(leaves) == 7, "of the API server, etcd, and the front proxy"

    assert "static pods restart" in run(machine)

    after = serials(machine)
    assert {name for name in after if after[name] != before[name]} == leaves, "the authorities stay"
    ends = [pki.life((folder / name).read_bytes()).ends for name in leaves]
    assert min(ends) > datetime.now(UTC) + timedelta(days=360)
    assert names_of(folder / "apiserver.crt") == names, "the API is reached under the same names"
    manifests = [yaml.safe_load(file.read_text()) for file in (machine / "etc/kubernetes/manifests").iterdir()]
    assert sorted(pod["metadata"]["name"] for pod in manifests) == [
        "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler",
    ]  # fmt: skip
    assert len({pod["metadata"]["annotations"][ANNOTATION] for pod in manifests}) == 1
    assert not (machine / "var/lib/moyai/renewing-certificates").exists()
    assert run(machine, "check") == run(machine) == ""


def names_of(file: Path) -> set[str]:
    found = x509.load_pem_x509_certificate(file.read_bytes()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return {str(name.value) for name in found.value}


def test_a_renewal_that_changes_nothing_restarts_nothing(machine: Path) -> None:
    """kubeadm succeeds where an authority's key is missing, and has renewed nothing."""
    folder = machine / "etc/kubernetes/pki"
    age(folder / "apiserver.crt", folder / "ca.key", days=250)
    (folder / "ca.key").unlink()
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run(machine)
    assert "kubeadm has not renewed" in refused.value.stderr
    manifests = [yaml.safe_load(file.read_text()) for file in (machine / "etc/kubernetes/manifests").iterdir()]
    assert not [pod for pod in manifests if ANNOTATION in pod["metadata"].get("annotations", {})]

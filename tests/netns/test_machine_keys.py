"""The program that changes a machine's keys, on what kubeadm itself makes: OpenSSL and kubeadm take what it leaves."""

from __future__ import annotations

import json
import runpy
import subprocess
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from moyai.bootstrap import pki, rotation_files
from moyai.core.clock import SystemClock
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.lifecycle.machine_keys import plane_order
from moyai.plan.rotation import Rotated, Rotation, begin, following
from moyai.toolchain import Toolchain

#: Certificate → its authority.
LEAVES = {
    "apiserver": "ca",
    "apiserver-kubelet-client": "ca",
    "apiserver-etcd-client": "etcd/ca",
    "etcd/server": "etcd/ca",
    "etcd/peer": "etcd/ca",
    "front-proxy-client": "front-proxy-ca",
}
CONFIG = {
    "apiVersion": "kubeadm.k8s.io/v1beta4",
    "kind": "ClusterConfiguration",
    "kubernetesVersion": "v1.37.1",
    "controlPlaneEndpoint": "10.0.0.4:6443",
    "encryptionAlgorithm": "ECDSA-P256",
}
INIT = {
    "apiVersion": "kubeadm.k8s.io/v1beta4",
    "kind": "InitConfiguration",
    "localAPIEndpoint": {"advertiseAddress": "10.0.0.5"},
    "nodeRegistration": {"name": "cp-0", "criSocket": "unix:///none"},
}


class KubeadmMachine:
    """A folder that kubeadm takes for a machine's root. ``record``: the folder ``pki`` of a cluster's record."""

    def __init__(self, folder: Path) -> None:
        self.root, self.record = folder / "root", folder / "pki"
        self._kubeadm = Toolchain(default_paths(), Reporter()).ensure(["kubernetes"])["kubernetes"].files["kubeadm"]
        self._program: Any = runpy.run_path(str(files("moyai.bootstrap") / "data" / "machine_keys.py"))
        for name in ("var/lib/kubelet/pki", "usr/local/lib/moyai", "etc/kubernetes/manifests"):
            (self.root / name).mkdir(parents=True)
        (self.root / "kubeadm.yaml").write_text(yaml.safe_dump_all([INIT, CONFIG]))
        for name, content in pki.ensure(self.record, SystemClock()).files.items():
            file = self.root / "etc/kubernetes/pki" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        self.first = folder / "first.crt"
        self.first.write_bytes((self.record / "ca.crt").read_bytes())
        for phase in ("certs all", "kubeconfig all", "control-plane all", "etcd local"):
            self.kubeadm(phase)

    def kubeadm(self, phase: str) -> None:
        words = ["init", "phase", *phase.split(), "--config", "/kubeadm.yaml", "--rootfs", str(self.root)]
        done = subprocess.run([self._kubeadm, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def bring(self, rotation: Rotation) -> list[str]:
        """What an order of this rotation changes."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        order = plane_order(pki.ensure(self.record, SystemClock()), rotation, encryption="", now=now, renewal="")
        machine = self._program["Machine"](self.root, json.loads(order.line()), end=lambda: None)
        machine.work()
        return list(machine.changed)

    def file(self, name: str) -> Path:
        return self.root / "etc/kubernetes/pki" / name

    def refused(self) -> list[str]:
        """What OpenSSL says of certificates that do not lead to the machine's authorities, or to the cluster's first one."""
        asked = [(self.file(f"{authority}.crt"), self.file(f"{leaf}.crt")) for leaf, authority in LEAVES.items()]
        return [
            said for trusted, leaf in (*asked, (self.first, self.file("apiserver.crt"))) if (said := verified(trusted, leaf))
        ]


def verified(trusted: Path, leaf: Path) -> str:
    words = ["openssl", "verify", "-CAfile", str(trusted), "-untrusted", str(leaf), str(leaf)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"{leaf.name}: {done.stdout} {done.stderr}"


@pytest.fixture
def machine(tmp_path: Path) -> KubeadmMachine:
    return KubeadmMachine(tmp_path)


def test_kubeadms_certificates_are_renewed_at_once_after_they_were_made(machine: KubeadmMachine) -> None:
    before = {name: machine.file(f"{name}.crt").read_bytes() for name in LEAVES}
    rotation = begin(Rotated.CERTIFICATES, now=datetime.now(UTC))
    machine.bring(rotation)
    assert not machine.refused()
    assert not [name for name, content in before.items() if machine.file(f"{name}.crt").read_bytes() == content]
    assert machine.bring(rotation) == []


def test_each_stage_of_new_authorities_is_one_that_kubeadm_and_openssl_take(machine: KubeadmMachine) -> None:
    at: Rotation | None = begin(Rotated.AUTHORITIES, now=datetime.now(UTC))
    while at is not None:
        rotation_files.advance(machine.record, at)
        assert machine.bring(at), at.stage
        assert machine.bring(at) == [], at.stage
        assert not machine.refused(), at.stage
        # a control plane that is made now begins with the same files
        for phase in ("certs all", "kubeconfig all"):
            machine.kubeadm(phase)
        assert machine.bring(at) == [], f"{at.stage}: kubeadm has left them as they were"
        at = following(at)
    assert machine.file("ca.crt").read_text().count("BEGIN") == 1
    assert machine.file("ca.crt").read_bytes() != machine.first.read_bytes()
    flags = (machine.root / "etc/kubernetes/manifests/kube-controller-manager.yaml").read_text()
    assert flags.count("--cluster-signing-cert-file=/etc/kubernetes/pki/signing-ca.crt") == 1

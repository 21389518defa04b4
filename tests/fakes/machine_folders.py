"""The folders of a cluster's machines, as kubeadm makes them. The program that changes keys on a machine runs in them as it is.

``broken`` says what no moment of a rotation may have: a certificate, a token or a Secret of one machine that another refuses.
"""

from __future__ import annotations

import base64
import json
import runpy
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

import moyai.bootstrap
from moyai.bootstrap import api_server, pki
from moyai.kube.resources import PODS, Json
from tests.fakes.object_store import ObjectStore

PROGRAM = Path(moyai.bootstrap.__file__).with_name("data") / "machine_keys.py"
STATIC = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
#: Certificate → authority.
LEAVES: Mapping[str, str] = {
    "apiserver": "ca",
    "apiserver-kubelet-client": "ca",
    "apiserver-etcd-client": "etcd/ca",
    "front-proxy-client": "front-proxy-ca",
    "etcd/server": "etcd/ca",
    "etcd/peer": "etcd/ca",
    "etcd/healthcheck-client": "etcd/ca",
}
_KUBELET = "var/lib/kubelet/pki/kubelet-client-current.pem"


class MachineFolders:
    """``store``: of the cluster's API, which shows static pods. ``ended``: kubelets that started again, in order."""

    def __init__(self, folder: Path, store: ObjectStore) -> None:
        self._folder, self._store = folder, store
        self._program: Any = runpy.run_path(str(PROGRAM))
        self.ended: list[str] = []
        #: Secret → name of the key that it is stored with.
        self.secrets: dict[str, str] = {}

    def root(self, node: str) -> Path:
        return self._folder / node

    def nodes(self) -> list[str]:
        return sorted(one.name for one in self._folder.iterdir())

    def make(self, node: str, keys: pki.Pki, *, encryption: str, now: datetime) -> None:
        """A machine as kubeadm leaves it."""
        root = self.root(node)
        kubernetes = root / "etc/kubernetes"
        (root / "var/lib/kubelet/pki").mkdir(parents=True)
        _write(kubernetes / "pki/ca.crt", keys.ca)
        if "control-plane" in node:
            for name, content in keys.files.items():
                _write(kubernetes / "pki" / name, content)
            for name, authority in LEAVES.items():
                certificate, key = signed(keys, authority, name=name, now=now)
                _write(kubernetes / "pki" / f"{name}.crt", certificate)
                _write(kubernetes / "pki" / f"{name}.key", key)
            for name in ("admin", "controller-manager", "scheduler"):
                certificate, key = signed(keys, "ca", name=name, now=now)
                user = {"client-certificate-data": _b64(certificate), "client-key-data": _b64(key)}
                _write(kubernetes / f"{name}.conf", yaml.safe_dump(_config(keys, user)).encode())
            for name in STATIC:
                containers = [{"name": name, "command": [name, "--cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt"]}]
                pod: Json = {"metadata": {"name": name}, "spec": {"containers": containers}}
                _write(kubernetes / "manifests" / f"{name}.yaml", yaml.safe_dump(pod).encode())
            _write(kubernetes / "api-server/encryption.yaml", api_server.encryption(encryption).encode())
            (root / "usr/local/lib/moyai").mkdir(parents=True)
            self._run_static(node)
        _write(kubernetes / "kubelet.conf", yaml.safe_dump(_config(keys, {"client-certificate": f"/{_KUBELET}"})).encode())
        first = root / "var/lib/kubelet/pki/kubelet-client-1.pem"
        _write(first, pki.kubelet_certificate(keys, node, now=now).encode())
        (root / _KUBELET).symlink_to(first.name)

    def work(self, node: str, given: bytes) -> str:
        machine = self._program["Machine"](self.root(node), json.loads(given), end=lambda: self.ended.append(node))
        machine.work()
        machine.end_kubelet()
        if "control-plane" in node:
            self._run_static(node)
        return json.dumps(machine.answer())

    def stored(self, secret: str, *, by: str) -> None:
        """An API server stores a Secret with its first key."""
        self.secrets[secret] = self.encryption(by)[0]

    # ---- what is there

    def certificates(self, node: str, name: str) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates((self.root(node) / "etc/kubernetes/pki" / f"{name}.crt").read_bytes())

    def kubelet(self, node: str) -> x509.Certificate:
        return x509.load_pem_x509_certificates((self.root(node) / _KUBELET).read_bytes())[0]

    def encryption(self, node: str) -> list[str]:
        found = yaml.safe_load((self.root(node) / "etc/kubernetes/api-server/encryption.yaml").read_text())
        return [one["name"] for one in found["resources"][0]["providers"][0]["secretbox"]["keys"]]

    def public_keys(self, node: str) -> str:
        return (self.root(node) / "etc/kubernetes/pki/sa.pub").read_text()

    def manifest(self, node: str, name: str) -> Any:
        return yaml.safe_load((self.root(node) / "etc/kubernetes/manifests" / f"{name}.yaml").read_text())

    def broken(self, *, roots: Iterable[x509.Certificate] = ()) -> list[str]:
        """``roots``: authorities that some program has read and never reads again."""
        planes = [node for node in self.nodes() if "control-plane" in node]
        return [*self._refused(planes, list(roots)), *self._unreadable(planes)]

    def _refused(self, planes: list[str], roots: list[x509.Certificate]) -> Iterator[str]:
        for plane in planes:
            shown = self.certificates(plane, "apiserver")
            for node in self.nodes():
                if not chained(shown, self.certificates(node, "ca")):
                    yield f"{node} refuses the API server of {plane}"
                if not chained([self.kubelet(node)], self.certificates(plane, "ca")):
                    yield f"{plane} refuses the kubelet of {node}"
            if not all(chained(shown, [root]) for root in roots):
                yield f"a program that knows an old authority refuses the API server of {plane}"
            for other in planes:
                for name in ("etcd/peer", "etcd/server", "apiserver-etcd-client"):
                    if not chained(self.certificates(plane, name), self.certificates(other, "etcd/ca")):
                        yield f"{other} refuses {name} of {plane}"
            key = (self.root(plane) / "etc/kubernetes/pki/apiserver.key").read_bytes()
            if pki.public_pem(key) != _public(shown[0]):
                yield f"the API server of {plane} has the key of another certificate"

    def _unreadable(self, planes: list[str]) -> Iterator[str]:
        for plane in planes:
            signs = pki.public_pem((self.root(plane) / "etc/kubernetes/pki/sa.key").read_bytes()).decode()
            for other in planes:
                if signs not in self.public_keys(other):
                    yield f"{other} refuses tokens of {plane}"
                if self.encryption(plane)[0] not in self.encryption(other):
                    yield f"{other} cannot read what {plane} stores"
            for secret, key in self.secrets.items():
                if key not in self.encryption(plane):
                    yield f"{plane} cannot read Secret {secret}"

    def _run_static(self, node: str) -> None:
        for name in STATIC:
            meta = self.manifest(node, name)["metadata"]
            meta = {"name": f"{name}-{node}", "namespace": "kube-system", "annotations": meta.get("annotations", {})}
            owner = [{"kind": "Node", "name": node}]
            status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            self._store.put(
                PODS, {"metadata": {**meta, "ownerReferences": owner}, "spec": {"nodeName": node}, "status": status}
            )


def chained(shown: list[x509.Certificate], trusted: list[x509.Certificate]) -> bool:
    """Whether the first certificate leads to a trusted authority, through those that are shown with it."""
    leaf, *others = shown
    if any(_issued(leaf, one) for one in trusted):
        return True
    return any(_issued(leaf, one) and chained([one, *(other for other in others if other != one)], trusted) for one in others)


def signed(keys: pki.Pki, authority: str, *, name: str, now: datetime) -> tuple[bytes, bytes]:
    """(certificate, key)"""
    above = x509.load_pem_x509_certificate(keys.files[f"{authority}.crt"])
    private = serialization.load_pem_private_key(keys.files[f"{authority}.key"], None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    own = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    builder = builder.issuer_name(above.subject).public_key(own.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(minutes=10)).not_valid_after(now + timedelta(days=365))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), pki.pem(own)


def _issued(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _config(keys: pki.Pki, user: Mapping[str, str]) -> Json:
    cluster = {"server": "https://192.0.2.1:6443", "certificate-authority-data": _b64(keys.ca)}
    return {"clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": dict(user)}]}


def _public(certificate: x509.Certificate) -> bytes:
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    return certificate.public_key().public_bytes(serialization.Encoding.PEM, info)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()

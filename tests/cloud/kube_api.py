"""A real Kubernetes API (etcd and kube-apiserver of the toolchain) on the loopback, for tests of controllers against it.

Started once for all tests of a run; ends with them. Nothing of a cluster runs beside it: no kubelet, no controller manager.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from ssl import create_default_context
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.toolchain import Toolchain

_TOKEN = "test-admin-token"


@dataclass
class KubeApi:
    """``kubeconfig``: an administrator's. ``stop`` and ``start`` make it go away for a while, with all that it knows."""

    folder: Path
    port: int
    kubeconfig: Path
    argv: list[str]
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        with (self.folder / "apiserver.log").open("ab") as log:
            self.process = subprocess.Popen(self.argv, stdout=log, stderr=log)
        _wait(lambda: self.call("GET", "/readyz", plain=True) == "ok", self.folder / "apiserver.log")

    def stop(self) -> None:
        if self.process:
            # asked nicely it waits a minute for open watches
            self.process.kill()
            self.process.wait(60)

    def call(self, method: str, path: str, *, body: object = None, plain: bool = False, kind: str = "application/json") -> Any:
        """As administrator; raises ``urllib.error.HTTPError``."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {_TOKEN}", "Content-Type": kind},
        )
        context = create_default_context(cafile=str(self.folder / "certs/apiserver.crt"))
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            text = answer.read().decode()
        return text if plain else json.loads(text)

    def apply(self, manifests: str) -> None:
        """Server-side apply of a YAML stream."""
        plurals = {
            "ServiceAccount": "serviceaccounts",
            "ClusterRole": "clusterroles",
            "ClusterRoleBinding": "clusterrolebindings",
            "Role": "roles",
            "RoleBinding": "rolebindings",
            "Secret": "secrets",
            "Deployment": "deployments",
        }
        for found in yaml.safe_load_all(manifests):
            version = found["apiVersion"]
            path = "/api/v1" if version == "v1" else f"/apis/{version}"
            if namespace := found["metadata"].get("namespace"):
                path += f"/namespaces/{namespace}"
            path += f"/{plurals[found['kind']]}/{found['metadata']['name']}?fieldManager=test"
            self.call("PATCH", path, body=found, kind="application/apply-patch+yaml")

    def kubeconfig_of(self, account: str, namespace: str = "kube-system") -> Path:
        """A kubeconfig for a service account, with its real token and only its rights."""
        answer = self.call(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token",
            body={"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}},
        )
        return _kubeconfig(self.folder / f"{account}.kubeconfig", self.url, folder=self.folder, token=answer["status"]["token"])


@contextmanager
def kube_api(folder: Path, *, flags: Mapping[str, str] | None = None) -> Generator[KubeApi]:
    """``flags``: of the API server, beside those that it needs here."""
    components = Toolchain(default_paths(), Reporter()).ensure(["etcd", "kubernetes"])
    etcd_port, peer_port, port = _free_port(), _free_port(), _free_port()
    with (folder / "etcd.log").open("wb") as log:
        etcd = subprocess.Popen(
            [
                str(components["etcd"].files["etcd"]),
                f"--data-dir={folder / 'etcd'}",
                f"--listen-client-urls=http://127.0.0.1:{etcd_port}",
                f"--advertise-client-urls=http://127.0.0.1:{etcd_port}",
                f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
                "--unsafe-no-fsync",
            ],
            stdout=log,
            stderr=log,
        )
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "sa.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    (folder / "sa.key").chmod(0o600)
    (folder / "tokens.csv").write_text(f'{_TOKEN},admin,admin,"system:masters"\n')
    api = KubeApi(
        folder,
        port,
        folder / "admin.kubeconfig",
        [
            str(components["kubernetes"].files["kube-apiserver"]),
            f"--etcd-servers=http://127.0.0.1:{etcd_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={folder / 'certs'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-node-port-range=8000-32767",
            f"--service-account-key-file={folder / 'sa.key'}",
            f"--service-account-signing-key-file={folder / 'sa.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none",
            "--disable-admission-plugins=ServiceAccount",
            *(f"--{name}={value}" for name, value in (flags or {}).items()),
        ],
    )
    _kubeconfig(api.kubeconfig, api.url, folder=folder, token=_TOKEN)
    try:
        api.start()
        yield api
    finally:
        api.stop()
        etcd.terminate()
        etcd.wait(60)


def _kubeconfig(path: Path, url: str, *, folder: Path, token: str) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "clusters": [
                    {"name": "test", "cluster": {"server": url, "certificate-authority": str(folder / "certs/apiserver.crt")}}
                ],
                "users": [{"name": "test", "user": {"token": token}}],
            }
        )
    )
    path.chmod(0o600)
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(ready: Any, log: Path, *, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"the API server did not come up:\n{log.read_text()[-2000:]}")

"""A real etcd and a real API server in a network namespace, with as many Node objects as are wanted."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moyai.bootstrap import pki
from moyai.core.clock import SystemClock
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.kube.quick import KubeApi
from moyai.kube.resources import NODES, Json
from moyai.linux import netns
from moyai.linux.background import background
from moyai.linux.process import run
from moyai.toolchain import Toolchain

_PORT, _ETCD, _ETCD_PEER = 6443, 2379, 2380
_CREATORS = 8
_ADVERTISED = "192.0.2.1"


@dataclass(frozen=True)
class ApiServer:
    """``space``: the namespace in which it listens. ``kubeconfig``: the administrator's, with an address that all who reach the
    server can use."""

    space: str
    kubeconfig: Path

    @property
    def api(self) -> KubeApi:
        """Its calls are made inside of the namespace."""
        return KubeApi.from_file(self.kubeconfig)

    def create_nodes(self, nodes: Iterable[Json]) -> None:
        api = self.api

        def create(node: Json) -> None:
            with netns.inside(self.space):
                api.create(NODES, node)

        with ThreadPoolExecutor(_CREATORS) as pool:
            list(pool.map(create, nodes))


@contextmanager
def api_server(space: str, folder: Path, *, address: str = "127.0.0.1") -> Generator[ApiServer]:
    """Both programs run during the block. ``folder``: for their files and logs. ``address``: where the server listens."""
    tools = Toolchain(default_paths(), Reporter())
    components = tools.ensure(["etcd", "kubernetes"])
    files = {name: file for one in components.values() for name, file in one.files.items()}
    clock = SystemClock()
    keys = pki.ensure(folder / "pki", clock)
    words = [
        "--cert-dir",
        str(keys.folder),
        f"--apiserver-advertise-address={_ADVERTISED}",
        f"--apiserver-cert-extra-sans={address}",
    ]
    run([files["kubeadm"], "init", "phase", "certs", "apiserver", *words])
    config = folder / "kubeconfig"
    config.write_text(pki.admin_kubeconfig(keys, name="test", server=f"https://{address}:{_PORT}", clock=clock))
    made = ApiServer(space, config)
    store = f"http://127.0.0.1:{_ETCD}"
    etcd_words = [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={store}",
        f"--advertise-client-urls={store}",
        f"--listen-peer-urls=http://127.0.0.1:{_ETCD_PEER}",
    ]
    server_words = [
        f"--etcd-servers={store}",
        f"--secure-port={_PORT}",
        f"--bind-address={address}",
        # of the documentation: without a default route the server finds none by itself
        f"--advertise-address={_ADVERTISED}",
        "--authorization-mode=RBAC",
        f"--client-ca-file={keys.folder / 'ca.crt'}",
        f"--tls-cert-file={keys.folder / 'apiserver.crt'}",
        f"--tls-private-key-file={keys.folder / 'apiserver.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={keys.folder / 'sa.pub'}",
        f"--service-account-signing-key-file={keys.folder / 'sa.key'}",
        "--service-cluster-ip-range=10.96.0.0/16",
    ]
    inside = netns.prefix(space)
    with (
        background([*inside, files["etcd"], *etcd_words], folder / "etcd.log"),
        background([*inside, files["kube-apiserver"], *server_words], folder / "api.log") as server,
    ):
        _await(made, server.check)
        yield made


def _await(made: ApiServer, check: Callable[[], None]) -> None:
    ends = time.monotonic() + 120
    api = made.api
    while time.monotonic() < ends:
        check()
        with netns.inside(made.space):
            if api.ready():
                return
        time.sleep(0.2)
    raise TimeoutError("the API server was not ready within two minutes")

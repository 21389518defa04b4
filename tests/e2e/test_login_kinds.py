"""Whole clusters by logins of other kinds than the local cloud's own. With one that `plan` accepts `up` builds a cluster, and
its parts work: the cloud controller manager makes a load balancer, the CSI driver a disk. `down` leaves nothing.

The TLS cloud is a second region of the same cloud: each of its addresses in the catalog is https, with a certificate of an
authority that only clouds.yaml names.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from moyai.cloud.openstack import ADAPTER, connect
from moyai.cloud.openstack.session import CloudSession
from moyai.csi import manifests
from moyai.localcloud import clouds_yaml
from tests.cloud.server_site import Site
from tests.e2e.conftest import kubectl_program
from tests.e2e.driver import Cluster
from tests.ordinary_user import Ordinary, installed_wheel, ordinary_user
from tests.tls import signed

pytestmark = pytest.mark.long

Entry = Mapping[str, Any]
Json = dict[str, Any]
#: Added to the port of each service: where it answers by TLS.
TLS = 10_000
#: Services that a cluster is built with, and that its parts call.
SERVICES = ("identity", "compute", "network", "image", "load-balancer", "volumev3", "block-storage", "block-store")
#: In the cloud's network namespace: ends TLS, and hands everything on.
ENDS_TLS = """
import asyncio, ssl, sys
address, certificate, *ports = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
async def main():
    for port in map(int, ports):
        async def serve(reader, writer, port=port):
            try:
                back, forth = await asyncio.open_connection(address, port)
            except OSError:
                writer.close()
                return
            await asyncio.gather(pump(reader, forth), pump(back, writer))
        await asyncio.start_server(serve, address, port + 10_000, ssl=context)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@dataclass(frozen=True)
class Logins:
    """Makes logins of all kinds, and takes them away again. ``keystone`` is called as the cloud's administrator."""

    user: CloudSession
    admin: CloudSession
    folder: Path
    undo: ExitStack

    @property
    def url(self) -> str:
        return self.user.endpoint("identity")

    def keystone(self, method: str, path: str, body: Any = None, *, own: bool = False) -> Any:
        session = self.user if own else self.admin
        return session.service("identity").request(method, path, operation="test", body=body)

    def make(self, kind: str, **fields: Any) -> Json:
        made = self.keystone("POST", f"/{kind}s", {kind: fields})[kind]
        self.undo.callback(self.keystone, "DELETE", f"/{kind}s/{made['id']}")
        return made

    def password(self) -> Json:
        """What the cloud's own user logs in with."""
        whole = yaml.safe_load(clouds_yaml.user_file().read_text())
        return dict(whole["clouds"][self.user.name]["auth"])


def _token(logins: Logins) -> Entry:
    auth = {"auth_url": logins.url, "token": logins.user.keystone.get_token(), "project_id": logins.user.project_id()}
    return {"auth_type": "v3token", "auth": auth}


def _restricted_credential(logins: Logins) -> Entry:
    own = f"/users/{logins.user.user_id()}/application_credentials"
    wanted = {"application_credential": {"name": f"test-{secrets.token_hex(3)}"}}
    made = logins.keystone("POST", own, wanted, own=True)["application_credential"]
    logins.undo.callback(logins.keystone, "DELETE", f"{own}/{made['id']}", own=True)
    auth = {"application_credential_id": made["id"], "application_credential_secret": made["secret"]}
    return {"auth_type": "v3applicationcredential", "auth": {"auth_url": logins.url, **auth}}


def _of_another_domain(logins: Logins) -> Entry:
    """A user who works in a project of the cloud's, and whose own domain is another one. All are known by their names."""
    name, password = f"other-{secrets.token_hex(3)}", secrets.token_hex(8)
    domain = logins.make("domain", name=name)
    # a domain goes once it is disabled, and with it what is in it
    logins.undo.callback(logins.keystone, "PATCH", f"/domains/{domain['id']}", {"domain": {"enabled": False}})
    user = logins.make("user", name="carla", domain_id=domain["id"], password=password)
    roles = {role["name"]: role["id"] for role in logins.keystone("GET", "/roles")["roles"]}
    project = logins.user.project_id()
    for role in ("member", "load-balancer_member"):
        logins.keystone("PUT", f"/projects/{project}/users/{user['id']}/roles/{roles[role]}")
    names = {"username": "carla", "user_domain_name": name, "project_name": logins.password()["project_name"]}
    return {"auth": {"auth_url": logins.url, "password": password, **names, "project_domain_name": "Default"}}


def _tls_in_another_region(logins: Logins) -> Entry:
    region = f"tls-{secrets.token_hex(3)}"
    logins.make("region", id=region)
    address, _, keystone = urlsplit(logins.url).netloc.partition(":")
    ports = set[int]()
    kinds = {one["id"]: one["type"] for one in logins.keystone("GET", "/services")["services"]}
    for endpoint in logins.keystone("GET", "/endpoints?interface=public")["endpoints"]:
        if kinds[endpoint["service_id"]] not in SERVICES:
            continue
        where = urlsplit(str(endpoint["url"]))
        assert where.port is not None
        ports.add(where.port)
        url = where._replace(scheme="https", netloc=f"{address}:{where.port + TLS}").geturl()
        logins.make("endpoint", service_id=endpoint["service_id"], interface="public", url=url, region_id=region)
    authority = signed("an authority of the tests")
    certificate, trusted = logins.folder / "cloud.pem", logins.folder / "authority.pem"
    certificate.write_text(signed("cloud", authority, address=address).whole)
    trusted.write_text(authority.text)
    _end_tls(logins, address, certificate=certificate, ports=sorted(ports))
    url = f"https://{address}:{int(keystone.removesuffix('/')) + TLS}{urlsplit(logins.url).path}"
    auth = {**logins.password(), "auth_url": url}
    return {"auth": auth, "region_name": region, "cacert": str(trusted)}


def _end_tls(logins: Logins, address: str, *, certificate: Path, ports: list[int]) -> None:
    """Machines reach these ports as well, and the host waits until the last of them answers."""
    site = Site(logins.user.name, None, None)
    init = json.loads((site.folder / "run" / "init.json").read_text())["pid"]
    inside = ["nsenter", "-t", str(init), "-n", "--"]
    answers = f"ip daddr {address} tcp dport {{ {', '.join(str(port + TLS) for port in ports)} }} accept"
    rule = ["nft", "--echo", "--handle", "insert", "rule", "inet", "moyai", "machines", *answers.split()]
    said = subprocess.run([*inside, *rule], check=True, capture_output=True, text=True).stdout
    handle = said.rsplit("handle ", 1)[1].split()[0]
    remove = ["nft", "delete", "rule", "inet", "moyai", "machines", "handle", handle]
    logins.undo.callback(subprocess.run, [*inside, *remove], check=False)
    words = [*inside, sys.executable, "-I", "-c", ENDS_TLS, address, str(certificate), *map(str, ports)]
    process = logins.undo.enter_context(subprocess.Popen(words))
    logins.undo.callback(process.terminate)
    for port in ports:
        _until_open(address, port + TLS)


def _until_open(address: str, port: int) -> None:
    start = time.monotonic()
    while True:
        try:
            socket.create_connection((address, port), 2).close()
        except OSError:
            assert time.monotonic() - start < 30, f"{address}:{port} does not answer"
            time.sleep(0.1)
        else:
            return


@pytest.fixture
def logins(cloud_name: str, tmp_path: Path) -> Generator[Logins]:
    with ExitStack() as undo:
        yield Logins(connect(cloud_name).session, connect(f"{cloud_name}-admin").session, tmp_path, undo)


def demands(namespace: str) -> Json:
    """A load balancer, and a disk that is made without a pod."""
    meta = {"name": "wanted", "namespace": namespace}
    port = {"port": 80, "targetPort": 80}
    service = {"type": "LoadBalancer", "selector": {"app": "wanted"}, "ports": [port]}
    storage = {**manifests.storage_class(ADAPTER.volume_names, "Delete"), "metadata": {"name": "wanted"}}
    claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": "wanted", "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {**storage, "volumeBindingMode": "Immediate"},
            {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": claim},
        ],
    }


def use(kubectl: Callable[..., str], folder: Path) -> None:
    """The cluster's parts do what they do with the cloud: they log in, and change it."""
    file = folder / "demands.json"
    file.write_text(json.dumps(demands("default")))
    file.chmod(0o644)
    kubectl("apply", "-f", str(file))
    kubectl("wait", "service/wanted", "--for=jsonpath={.status.loadBalancer.ingress[0].ip}", "--timeout=240s")
    kubectl("wait", "pvc/wanted", "--for=jsonpath={.status.phase}=Bound", "--timeout=240s")


LOGINS: Mapping[str, Callable[[Logins], Entry]] = {
    "token": _token,
    "restricted application credential": _restricted_credential,
    "TLS in another region": _tls_in_another_region,
}


@pytest.mark.parametrize("kind", LOGINS)
def test_a_login_that_plan_accepts_builds_a_cluster_whose_parts_work(
    kind: str, logins: Logins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"region_name": logins.user.region_name(), **LOGINS[kind](logins)}
    file = tmp_path / "clouds.yaml"
    file.write_text(json.dumps({"clouds": {"login": entry}}))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(file))
    cluster = Cluster(tmp_path / "cluster", "login", workers=0)
    cluster.moyai("plan", str(cluster.folder))
    with cluster.removed_at_end():
        cluster.up()
        assert [node["node"] for node in cluster.status()["nodes"]] == ["Ready"]
        use(cluster.kubectl, tmp_path)
        assert "nothing to do" in cluster.moyai("plan", str(cluster.folder)).stdout


@pytest.fixture(scope="module")
def wheel() -> Generator[Path]:
    with installed_wheel() as folder:
        yield folder


@pytest.fixture
def user(wheel: Path) -> Generator[Ordinary]:
    with ordinary_user(wheel, seconds=900) as user:
        yield user


def test_an_ordinary_user_of_another_domain_builds_and_removes_a_cluster_with_an_installed_wheel(
    user: Ordinary, logins: Logins
) -> None:
    clouds = user.home / ".config/openstack/clouds.yaml"
    clouds.parent.mkdir(parents=True)
    entry = {"region_name": logins.user.region_name(), **_of_another_domain(logins)}
    clouds.write_text(json.dumps({"clouds": {"corp": entry}}))
    name = f"e2e-{secrets.token_hex(3)}"
    spec = user.home / "cluster.yaml"
    spec.write_text(json.dumps({"metadata": {"name": name}, "spec": {"cloud": "corp", "nodePools": []}}))
    shutil.copy(kubectl_program(), user.bin / "kubectl")
    (user.bin / "ssh").symlink_to("/usr/bin/ssh")
    user.own()

    def moyai(*words: str) -> str:
        answer = user.run(*words, MOYAI_CLUSTER=name)
        assert answer.code == 0, f"{' '.join(words)}: {answer.err[-3000:]}"
        return answer.out

    assert "server" in moyai("plan", str(spec))
    try:
        moyai("up", str(spec))
        assert [node["node"] for node in json.loads(moyai("status", name, "--output", "json"))["nodes"]] == ["Ready"]
        use(lambda *words: moyai("kubectl", *words), user.home)
        assert moyai("ssh", f"{name}-control-plane-0", "hostname").strip() == f"{name}-control-plane-0"
        assert (name, True) in {(one["name"], one["recorded"]) for one in clusters(moyai)}
    finally:
        if (user.home / ".local/state/moyai/clusters" / name).exists():
            report = json.loads(moyai("down", name, "--yes", "--output", "json"))
            assert report["left"] == 0
    assert name not in {one["name"] for one in clusters(moyai)}


def clusters(moyai: Callable[..., str]) -> list[Json]:
    return json.loads(moyai("clusters", "--cloud", "corp", "--output", "json"))["clusters"]

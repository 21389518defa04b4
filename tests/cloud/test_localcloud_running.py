"""A running local cloud from the outside: closed to those without a token, on one address only, left alone by `up`."""

from __future__ import annotations

import json
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path

import pytest

from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.linux import proc
from moyai.linux.process import run
from moyai.localcloud import nifcloud_access, secrets
from moyai.localcloud import start_stop as local
from moyai.localcloud.api import Api
from moyai.localcloud.layout import FLAVORS, PORTS, REACHABLE_BY_MACHINES, CloudPaths
from moyai.localcloud.status import status
from tests.command_lines import command_line


class Cloud:
    def __init__(self, name: str) -> None:
        self.paths = CloudPaths(default_paths().cloud(name))
        config, values = local.recorded(self.paths), secrets.load(self.paths.secrets)
        record = proc.ProcessRecord.load(self.paths.init_record)
        assert config is not None
        assert values is not None
        assert record is not None
        self.config, self.secrets, self.init = config, values, record.pid
        self.admin = Api(config, values.admin)
        self.demo = Api(config, values.demo, user="demo", project="demo")

    def inside(self, *argv: str, netns: str = "") -> str:
        # the pid namespace too: its own /proc is mounted there, and `ip` looks itself up in it
        into = ["nsenter", f"--target={self.init}", "--mount", "--net", "--pid"]
        return run([*into, *(["ip", "netns", "exec", netns] if netns else []), *argv], timeout=30).stdout


@pytest.fixture(scope="module")
def site(cloud_name: str) -> Cloud:
    return Cloud(cloud_name)


def test_all_is_well(site: Cloud) -> None:
    deadline = time.monotonic() + 60
    while (view := status(site.config, default_paths())).condition != "running" and time.monotonic() < deadline:
        time.sleep(1)
    assert view.problems == ()


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("keystone", "/v3/users"),
        ("glance", "/v2/images"),
        ("placement", "/resource_providers"),
        ("nova", "/v2.1/servers"),
        ("neutron", "/v2.0/networks"),
        ("cinder", "/v3/types"),
        ("octavia", "/v2/lbaas/loadbalancers"),
    ],
)
def test_without_a_token_nothing_is_answered(site: Cloud, service: str, path: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as caught:
        opener.open(site.config.url(service, path), timeout=20)
    assert caught.value.code == 401
    caught.value.close()


def test_an_ordinary_user_is_no_administrator(site: Cloud) -> None:
    for service, path in (("keystone", "/v3/users"), ("nova", "/v2.1/os-hypervisors"), ("neutron", "/v2.0/agents")):
        try:
            answer = site.demo.get(service, path)
        except Exception as error:
            assert "answers 40" in str(error)  # noqa: PT017 - Neutron answers with an empty list instead
        else:
            assert answer == {"agents": []}


def test_services_listen_on_the_management_address_and_nowhere_else(site: Cloud) -> None:
    for netns in ("", *(hypervisor.netns for hypervisor in site.config.hypervisors if hypervisor.netns)):
        lines = site.inside("ss", "--no-header", "--listening", "--tcp", "--numeric", netns=netns).splitlines()
        addresses = {line.split()[3].rpartition(":")[0] for line in lines}
        assert addresses <= {site.config.address, "127.0.0.1", "[::1]"}, lines
        if not netns:
            assert site.config.address in addresses


def test_nobody_but_root_reads_the_clouds_files(site: Cloud) -> None:
    for folder in ("", "conf", "run", "state", "log"):
        assert stat.S_IMODE((site.paths.root / folder).stat().st_mode) == 0o700, folder
    for file in (*site.paths.conf.rglob("*.conf"), site.paths.secrets):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_no_secret_is_on_a_command_line_or_in_a_log(site: Cloud) -> None:
    values = [value for value in vars(site.secrets).values() if isinstance(value, str)] + list(site.secrets.services.values())
    for pid in proc.members(site.init).values():
        line = command_line(pid)
        assert not any(value in word for value in values for word in line), line
    for file in site.paths.log.glob("*.log"):
        text = file.read_text(errors="replace")
        assert not any(value in text for value in values), file


def test_zones_and_flavors_are_what_was_asked_for(site: Cloud) -> None:
    nova = site.demo.get("nova", "/v2.1/os-availability-zone")["availabilityZoneInfo"]
    cinder = site.demo.get("cinder", f"/v3/{site.demo.project_id()}/os-availability-zone")["availabilityZoneInfo"]
    assert {zone["zoneName"] for zone in nova if zone["zoneState"]["available"]} == set(site.config.zones)
    assert {zone["zoneName"] for zone in cinder} == set(site.config.zones)
    flavors = site.demo.get("nova", "/v2.1/flavors/detail")["flavors"]
    assert {(one["name"], one["vcpus"], one["ram"], one["disk"]) for one in flavors} == set(FLAVORS)


def test_quotas_are_real(site: Cloud) -> None:
    project = site.demo.project_id()
    quota = site.demo.get("neutron", f"/v2.0/quotas/{project}")["quota"]
    assert (quota["port"], quota["floatingip"], quota["network"]) == (500, 50, 100)
    limits = site.demo.get("nova", "/v2.1/limits")["limits"]["absolute"]
    assert (limits["maxTotalInstances"], limits["maxTotalCores"]) == (40, 80)


@pytest.fixture
def outsider(site: Cloud) -> Generator[str]:
    """Somebody on the external network, as every machine behind a router is."""
    name, address = "t-outsider", site.config.external[-3]
    site.inside("ip", "netns", "add", name)
    try:
        site.inside("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        site.inside("ip", "link", "set", name, "master", "os-br-ex", "up")
        site.inside("ip", "-n", name, "address", "add", f"{address}/{site.config.external.prefixlen}", "dev", "eth0")
        site.inside("ip", "-n", name, "link", "set", "eth0", "up")
        site.inside("ip", "-n", name, "route", "add", "default", "via", site.config.external_gateway)
        yield name
    finally:
        # the end of the namespace alone would free the pair's name only some time later, maybe after the next test has begun
        site.inside("sh", "-c", f"ip link delete {name}; ip netns delete {name}")


CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
    print("open")
except OSError as error:
    print("closed")
"""


def test_machines_reach_the_apis_but_neither_the_bus_nor_the_host_nor_beyond(site: Cloud, outsider: str) -> None:
    def reach(address: str, port: int) -> str:
        return site.inside("/usr/bin/env", "python3", "-c", CONNECT, address, str(port), netns=outsider).strip()

    # nobody listens there in a cloud that does not speak NIFCLOUD
    silent = () if nifcloud_access.load(site.paths) else ("nifcloud",)
    for service, port in PORTS.items():
        # of the registry's two listeners, the read-only one answers at both ports
        expected = "open" if service in (*REACHABLE_BY_MACHINES, "registry") and service not in silent else "closed"
        assert (service, reach(site.config.address, port)) == (service, expected)
    # the address that faces the machines has no service at all
    assert reach(site.config.external_gateway, 5000) == "closed"
    # the host listens there, for this test only
    import socket

    with socket.create_server((site.config.host_address, 0)) as server:
        assert reach(site.config.host_address, server.getsockname()[1]) == "closed"
    if not site.config.outbound:
        assert "unreachable default" in site.inside("ip", "route")


DATAGRAM = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
    channel.settimeout(1)
    channel.connect((sys.argv[1], int(sys.argv[2])))
    channel.send(b"x")
    try:
        channel.recv(1)
    except ConnectionRefusedError:
        print("arrived")  # the kernel says that nobody listens
    except TimeoutError:
        print("dropped")
"""


def test_no_datagram_of_a_machine_arrives_so_nobody_sends_frames_into_the_tunnels(site: Cloud, outsider: str) -> None:
    def send(netns: str) -> str:
        # a port that nothing listens on: the kernel answers what gets through
        return site.inside("/usr/bin/env", "python3", "-c", DATAGRAM, site.config.address, "9", netns=netns).strip()

    assert send(outsider) == "dropped"
    assert send("hv2") == "arrived"


WRITE = """
import http.client, sys
for method, path in (
    ("POST", "/v2/planted/blobs/uploads/"),
    ("PUT", "/v2/planted/manifests/latest"),
    ("PATCH", "/v2/planted/blobs/uploads/1"),
    ("DELETE", "/v2/planted/manifests/latest"),
    ("DELETE", "/v2/planted/blobs/sha256:" + 64 * "0"),
    ("GET", "/v2/"),
):
    connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=5)
    connection.request(method, path)
    print(method, connection.getresponse().status)
"""


@pytest.mark.parametrize("port", ["registry", "registry-readonly"])
def test_machines_read_the_registry_and_cannot_change_it(site: Cloud, outsider: str, port: str) -> None:
    argv = ("/usr/bin/env", "python3", "-c", WRITE, site.config.address, str(PORTS[port]))
    lines = site.inside(*argv, netns=outsider).splitlines()
    assert lines[-1] == "GET 200"
    assert {line.split()[1] for line in lines[:-1]} <= {"404", "405"}, lines


def test_the_host_writes_to_the_registry(site: Cloud) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(site.config.url("registry", "/v2/t/blobs/uploads/"), data=b"", method="POST")
    with opener.open(request, timeout=10) as answer:
        assert answer.status == 202
    # another hypervisor's network namespace is not the host
    registry = (site.config.address, str(PORTS["registry"]))
    assert site.inside("/usr/bin/env", "python3", "-c", CONNECT, *registry, netns="hv2").strip() == "closed"


def test_the_registry_is_in_the_catalog_and_answers(site: Cloud) -> None:
    services = site.admin.get("keystone", "/v3/services?type=container-registry")["services"]
    endpoints = site.admin.get("keystone", f"/v3/endpoints?service_id={services[0]['id']}&interface=public")["endpoints"]
    assert [endpoint["url"] for endpoint in endpoints] == [site.config.url("registry")]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(site.config.url("registry", "/v2/"), timeout=10) as answer:
        assert json.loads(answer.read()) == {}


def test_a_user_has_ec2_credentials(site: Cloud) -> None:
    user = site.admin.get("keystone", "/v3/users?name=demo")["users"][0]["id"]
    path = f"/v3/users/{user}/credentials/OS-EC2"
    made = site.demo.post("keystone", path, body={"tenant_id": site.demo.project_id()})["credential"]
    for _ in range(3):  # the first answer fills Keystone's cache, the later ones come from it
        assert made in site.demo.get("keystone", path)["credentials"]
        assert site.demo.get("keystone", f"{path}/{made['access']}")["credential"] == made
    site.demo.request("DELETE", "keystone", path=f"{path}/{made['access']}")
    assert made not in site.demo.get("keystone", path)["credentials"]


def test_up_on_a_running_cloud_changes_nothing_and_is_quick(site: Cloud, tmp_path: Path) -> None:
    before = {one.name: (one.pid, one.restarts) for one in status(site.config, default_paths()).services}
    start = time.monotonic()
    local.up(site.config, default_paths(), reporter=Reporter(), clouds_file=tmp_path / "clouds.yaml")
    assert time.monotonic() - start < 10
    assert {one.name: (one.pid, one.restarts) for one in status(site.config, default_paths()).services} == before

"""A local cloud's whole life, on one of its own: killed while it is made, made, broken, cut off, ended, restored.

The tests are one story in the order of the file: each takes the cloud as the one before left it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from moyai.core.clock import SystemClock
from moyai.core.errors import UsageError
from moyai.core.paths import Paths, default_paths
from moyai.core.progress import Reporter
from moyai.core.waiting import NotYet, until
from moyai.linux import proc
from moyai.linux.process import run
from moyai.localcloud import database_image, env, host, secrets
from moyai.localcloud import start_stop as local
from moyai.localcloud.api import Api
from moyai.localcloud.control import Control
from moyai.localcloud.layout import EXTERNAL_BRIDGE, CloudPaths, LocalCloudConfig
from moyai.localcloud.status import status
from tests.command_lines import command_line
from tests.conftest import alone, remove_leftovers

CONFIG = LocalCloudConfig("life", "10.247.0.0/24", "10.246.0.0/24")
#: The last of its lives.
OUTBOUND = replace(CONFIG, outbound=True)

UP = """
import sys
from pathlib import Path
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.core.waiting import NotYet, until
from moyai.localcloud import start_stop
from moyai.localcloud.layout import LocalCloudConfig
cache, state, clouds = map(Path, sys.argv[1:4])
start_stop.up(LocalCloudConfig(*sys.argv[4:7]), Paths(cache, state), Reporter(), clouds_file=clouds)
"""


class Life:
    def __init__(self, state: Path) -> None:
        self.paths = Paths(default_paths().cache, state / "s")
        self.clouds_file = state / "clouds.yaml"
        self.folders = CloudPaths(self.paths.cloud(CONFIG.name))
        self.control = Control(self.folders.control_socket)
        self.reporter = Reporter()

    def up(self, config: LocalCloudConfig = CONFIG) -> float:
        start = time.monotonic()
        local.up(config, self.paths, reporter=self.reporter, clouds_file=self.clouds_file)
        return time.monotonic() - start

    def down(self, *, keep: bool = False) -> list[str]:
        return local.down(CONFIG, self.paths, reporter=self.reporter, keep=keep, clouds_file=self.clouds_file)

    def start_up(self) -> subprocess.Popen[bytes]:
        words = [str(self.paths.cache), str(self.paths.state), str(self.clouds_file)]
        fields = [CONFIG.name, CONFIG.management_cidr, CONFIG.external_cidr]
        return subprocess.Popen([sys.executable, "-c", UP, *words, *fields], start_new_session=True)

    def api(self) -> Api:
        values = secrets.load(self.folders.secrets)
        assert values is not None
        return Api(CONFIG, values.demo, user="demo", project="demo")

    def init(self) -> int:
        record = proc.ProcessRecord.load(self.folders.init_record)
        assert record is not None
        return record.pid

    def host_pid(self, service: str) -> int:
        inner = next(one.pid for one in self.control.status() if one.name == service)
        return proc.members(self.init())[inner]

    def until(self, true: Callable[[], object], seconds: float) -> None:
        until(lambda: bool(true()) or NotYet("it"), clock=SystemClock(), timeout=seconds, pause=0.5)

    def supervisor(self) -> int:
        return next(pid for pid in proc.children(self.init()) if "moyai.localcloud.supervisor" in command_line(pid))


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Generator[Life]:
    found = Life(tmp_path_factory.mktemp("life"))
    environment = env.ensure(found.paths)
    key = database_image.key(CONFIG, environment, paths=found.folders)
    with alone(CONFIG):
        remove_leftovers(CONFIG, found.paths)
        yield found
        assert found.down() == []
    database_image.DatabaseImages(found.paths).remove(key)


@pytest.mark.parametrize("seconds", [0.3, 1.5, 12.0])
def test_an_up_that_is_killed_leaves_what_down_takes_away(life: Life, seconds: float) -> None:
    process = life.start_up()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    process.wait()
    assert life.down() == []
    assert not life.folders.root.exists()
    assert not life.clouds_file.exists()


def test_an_up_that_is_killed_is_gone_on_with_and_the_cloud_is_made(life: Life) -> None:
    process = life.start_up()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(8)
    process.kill()
    process.wait()
    # killed between the namespace's start and its record: the next `up` must find it all the same, and not start a second one
    life.folders.init_record.unlink(missing_ok=True)
    seconds = life.up()
    assert inits(life) == [life.init()]
    print(f"cloud from nothing: {seconds:.1f} s")
    assert status(CONFIG, life.paths).condition == "running"
    entry = yaml.safe_load(life.clouds_file.read_text())["clouds"]["life"]
    assert entry["auth"]["auth_url"] == CONFIG.auth_url


def inits(life: Life) -> list[int]:
    """The first processes of this cloud's namespaces."""
    words = {"moyai.localcloud.init", str(life.folders.root)}
    lines = {pid: command_line(pid) for pid in proc.pids()}
    return [pid for pid, line in lines.items() if words <= {*line} and "unshare" not in line[0]]


def test_of_two_at_once_the_second_waits_and_says_so(life: Life) -> None:
    said: queue.Queue[str] = queue.Queue()
    waiting = Reporter(lambda event: said.put(event.detail) if event.kind == "note" else None)
    second = threading.Thread(
        target=local.up, args=(CONFIG, life.paths), kwargs={"reporter": waiting, "clouds_file": life.clouds_file}, daemon=True
    )
    with local.locked(CONFIG.name, life.reporter):
        second.start()
        assert said.get(timeout=30) == f"cloud 'life': waiting for process {os.getpid()}, which is at work on it"
        assert second.is_alive()
    second.join(60)
    assert not second.is_alive()
    assert status(CONFIG, life.paths).condition == "running"


def test_another_cloud_of_the_same_name_or_range_is_refused(life: Life) -> None:
    with pytest.raises(UsageError, match="exists with another zones"):
        life.up(replace(CONFIG, zones=("az1",)))
    # beside the other one: sockets allow no long paths
    elsewhere = Paths(life.paths.cache, life.clouds_file.parent / "o")
    other = replace(CONFIG, name="other")
    with pytest.raises(UsageError, match=r"management range 10\.247\.0\.0/24 overlaps"):
        local.up(other, elsewhere, reporter=life.reporter, clouds_file=life.clouds_file)
    for call in (local.up, local.down):
        with pytest.raises(UsageError, match=f"a cloud 'life' runs from {life.folders.root}"):
            call(CONFIG, elsewhere, reporter=life.reporter, clouds_file=life.clouds_file)
    assert status(CONFIG, life.paths).condition == "running"


def test_whatever_is_killed_comes_back(life: Life) -> None:
    services = [one.name for one in life.control.status()]
    victims = ["mariadb", "rabbitmq", "neutron-server", "nova-compute-hv2", *random.Random(7).sample(services, 3)]
    for name in dict.fromkeys(victims):
        os.kill(life.host_pid(name), signal.SIGKILL)
    time.sleep(0.5)
    life.control.wait_ready(services, 180)
    os.kill(life.supervisor(), signal.SIGKILL)
    life.up()
    view = status(CONFIG, life.paths)
    assert view.condition == "running", view.problems
    counted = {one.name: one.restarts for one in view.services}
    assert all(counted[name] >= 1 for name in victims)


def test_the_load_balancer_daemon_logs_in_again_when_its_catalog_lacks_neutron(life: Life) -> None:
    """It may log in before Neutron is in the catalog, and a login keeps the catalog that it got."""
    values = secrets.load(life.folders.secrets)
    assert values is not None
    admin, user = Api(CONFIG, values.admin), life.api()
    (service,) = admin.get("keystone", "/v3/services?type=network")["services"]
    endpoints = admin.get("keystone", f"/v3/endpoints?service_id={service['id']}")["endpoints"]

    def enable(enabled: bool) -> None:
        for endpoint in endpoints:
            body = {"endpoint": {"enabled": enabled}}
            admin.request("PATCH", "keystone", path=f"/v3/endpoints/{endpoint['id']}", body=body)

    log = life.folders.log / "moyai-lbd.log"
    start = log.stat().st_size
    enable(False)
    try:
        life.control.restart(["moyai-lbd"])
        life.until(lambda: b"the catalog of this login lacks Neutron" in log.read_bytes()[start:], 60)
    finally:
        enable(True)
    network = user.post("neutron", "/v2.0/networks", body={"network": {"name": "late"}})["network"]["id"]
    subnet = {"network_id": network, "ip_version": 4, "cidr": "10.99.0.0/24"}
    subnet_id = user.post("neutron", "/v2.0/subnets", body={"subnet": subnet})["subnet"]["id"]
    wanted = {"loadbalancer": {"name": "late", "vip_subnet_id": subnet_id}}
    path = "/v2.0/lbaas/loadbalancers"
    path += "/" + user.post("octavia", path, body=wanted)["loadbalancer"]["id"]

    def status_of() -> str:
        return user.get("octavia", path)["loadbalancer"]["provisioning_status"]

    life.until(lambda: not status_of().startswith("PENDING"), 120)
    assert status_of() == "ACTIVE"
    user.request("DELETE", "octavia", path=path)
    life.until(lambda: not user.get("octavia", "/v2.0/lbaas/loadbalancers")["loadbalancers"], 60)
    user.request("DELETE", "neutron", path=f"/v2.0/networks/{network}")


def test_a_host_that_is_started_anew_gets_the_same_cloud_back(life: Life) -> None:
    made = life.api().post("neutron", "/v2.0/networks", body={"network": {"name": "kept"}})["network"]["id"]
    before = life.folders.secrets.read_text()
    # what a reboot does: all processes and links are gone at once, the files are as they were at that moment
    os.kill(life.init(), signal.SIGKILL)
    deadline = time.monotonic() + 30
    while CONFIG.link in host.links() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status(CONFIG, life.paths).condition == "stopped"
    life.up()
    assert status(CONFIG, life.paths).condition == "running"
    assert life.folders.secrets.read_text() == before
    assert life.api().get("neutron", "/v2.0/networks?name=kept")["networks"][0]["id"] == made


def test_kept_state_comes_back_and_a_lost_link_is_mended(life: Life) -> None:
    assert life.down(keep=True) == []
    assert CONFIG.link not in host.links()
    life.up()
    host.detach(CONFIG)
    life.up()
    assert len(life.api().get("neutron", "/v2.0/networks?name=kept")["networks"]) == 1


def test_down_leaves_nothing_behind(life: Life) -> None:
    init = life.init()
    inside = proc.members(init)
    assert len(inside) > 20
    assert life.down() == []
    assert host.leftovers(CONFIG) == []
    assert not life.folders.root.exists()
    assert not life.clouds_file.exists()
    assert status(CONFIG, life.paths).condition == "none"
    assert all(proc.start_time(pid) is None for pid in inside.values())
    # nothing to end is no error either
    assert life.down() == []


@pytest.fixture
def world() -> Generator[str]:
    """A peer that this host reaches. The peer has a route back only to this host's own address."""
    name = "t-life-world"
    # behind the route stands an unreachable one: nothing for the world leaves by the default route
    run(["ip", "route", "add", "unreachable", "198.18.7.0/30", "metric", str(host.FENCE_METRIC)])
    try:
        run(["ip", "netns", "add", name])
        run(["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name])
        run(["ip", "address", "add", "198.18.7.1/30", "dev", name])
        run(["ip", "link", "set", name, "up"])
        run(["ip", "-n", name, "address", "add", "198.18.7.2/30", "dev", "eth0"])
        run(["ip", "-n", name, "link", "set", "eth0", "up"])
        yield "198.18.7.2"
    finally:
        # the end of the namespace alone would free the pair's name only some time later
        run(["ip", "link", "delete", name], check=False)
        run(["ip", "netns", "delete", name], check=False)
        run(["ip", "route", "delete", "unreachable", "198.18.7.0/30", "metric", str(host.FENCE_METRIC)])


def test_from_the_snapshot_it_is_a_fresh_cloud_and_quicker(life: Life) -> None:
    seconds = life.up(OUTBOUND)
    print(f"cloud from a snapshot: {seconds:.1f} s")
    assert life.api().get("neutron", "/v2.0/networks?name=kept")["networks"] == []
    # on a busy host an agent's report may come late once; what does not mend itself within half a minute is a fault
    deadline = time.monotonic() + 30
    while (view := status(CONFIG, life.paths)).condition != "running" and time.monotonic() < deadline:
        time.sleep(0.5)
    assert view.condition == "running", view.problems


def test_with_outbound_machines_get_out_under_the_hosts_address_and_the_host_stays_closed(life: Life, world: str) -> None:
    """The way out is asked for; the cloud before this one had none (test_localcloud_running)."""
    into = ["nsenter", f"--target={life.init()}", "--mount", "--net", "--pid"]
    name, address = "t-out", CONFIG.external[-3]
    for words in (
        ("ip", "netns", "add", name),
        ("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name),
        ("ip", "link", "set", name, "master", EXTERNAL_BRIDGE, "up"),
        ("ip", "-n", name, "address", "add", f"{address}/{CONFIG.external.prefixlen}", "dev", "eth0"),
        ("ip", "-n", name, "link", "set", "eth0", "up"),
        ("ip", "-n", name, "route", "add", "default", "via", CONFIG.external_gateway),
    ):
        run([*into, *words])

    def ping(target: str) -> bool:
        return run([*into, "ip", "netns", "exec", name, "ping", "-c", "1", "-W", "2", target], check=False).returncode == 0

    assert ping(world)
    assert not ping("198.18.7.1")

"""Load balancers of the local cloud, asked for through its API and used from the host."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1.exceptions import ClientException
from openstack import exceptions

from moyai.linux.process import run
from tests import sdk
from tests.cloud.lb_site import PORT, Site, curl, name_of, site

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="looks into the cloud's namespaces"),
    *sdk.REMOVALS,
]


@pytest.fixture(scope="module")
def place(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(cloud_name, tmp_path_factory.mktemp("lb")) as made:
        yield made


@pytest.fixture(scope="module")
def served(place: Site) -> tuple[Any, str]:
    """A TCP load balancer made in one call, and its floating IP."""
    lb = place.wait(place.create(place.tree(), tags=["a", "b"]))
    assert sorted(lb.tags) == ["a", "b"]
    address = place.floating(lb)
    until("served", lambda: curl(address) != "", within=15)
    return lb, address


def until(what: str, holds: Callable[[], object], *, within: float = 10.0) -> None:
    """Wait until ``holds()`` is true."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.05)


def processes(place: Site, *words: str) -> list[int]:
    """The cloud's processes (as the host numbers them) with these words in their command line."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if f"/clouds/{place.cloud}/" in line and all(word in line for word in words):
                found.append(int(entry.name))
    return found


def put_members(place: Site, lb: Any, *, members: list[dict[str, Any]]) -> None:
    """One batch update of the load balancer's only pool."""
    pool = place.user.load_balancer.get_load_balancer(lb.id).pools[0]["id"]
    answer = place.user.load_balancer.put(f"/lbaas/pools/{pool}/members", json={"members": members})
    exceptions.raise_from_response(answer)
    place.wait(lb)


def test_one_call_makes_all_and_both_members_answer(place: Site, served: tuple[Any, str]) -> None:
    lb, address = served
    # one that is not yet known to be healthy gets nothing
    until("online", lambda: set(place.statuses(lb).values()) == {"ONLINE"})
    assert {name_of(curl(address)) for _ in range(6)} == set(place.members)
    assert f"peer={lb.vip_address}" in curl(address)


def test_members_in_batches(place: Site, served: tuple[Any, str]) -> None:
    lb, address = served
    first, second = place.members
    put_members(place, lb, members=[{"address": first, "protocol_port": PORT}])
    assert {name_of(curl(address)) for _ in range(4)} == {first}
    put_members(
        place, lb, members=[{"address": one, "protocol_port": PORT, "weight": w} for one, w in ((first, 0), (second, 2))]
    )
    assert {name_of(curl(address)) for _ in range(4)} == {second}
    put_members(place, lb, members=[{"address": one, "protocol_port": PORT} for one in (first, second)])
    assert {name_of(curl(address)) for _ in range(4)} == {first, second}


def test_health_is_seen_in_the_api(place: Site, served: tuple[Any, str]) -> None:
    lb, address = served
    first, second = place.members
    place.stop(first)
    until(
        "lost",
        lambda: (
            place.statuses(lb)
            == {"lb": "DEGRADED", "listener": "DEGRADED", "pool": "DEGRADED", first: "ERROR", second: "ONLINE"}
        ),
    )
    assert {name_of(curl(address)) for _ in range(4)} == {second}
    place.start(first)
    until("back", lambda: set(place.statuses(lb).values()) == {"ONLINE"})


def test_udp_and_allowed_cidrs_beside_tcp(place: Site, served: tuple[Any, str]) -> None:
    lb, address = served
    api = place.user.load_balancer
    pool = api.create_pool(name="udp", protocol="UDP", lb_algorithm="ROUND_ROBIN", loadbalancer_id=lb.id)
    place.wait(lb)
    for member in place.members:
        api.create_member(pool, address=member, protocol_port=PORT, subnet_id=place.subnet.id)
        place.wait(lb)
    listener = api.create_listener(
        name="udp", protocol="UDP", protocol_port=53, load_balancer_id=lb.id, default_pool_id=pool.id
    )
    place.wait(lb)
    assert {ask(address) for _ in range(4)} == set(place.members)
    monitor = api.create_health_monitor(pool_id=pool.id, type="UDP-CONNECT", delay=4, timeout=1, max_retries=1)
    place.wait(lb)
    api.update_listener(listener, allowed_cidrs=["192.0.2.0/24"])
    place.wait(lb)
    assert ask(address) == ""
    api.delete_health_monitor(monitor)
    place.wait(lb)
    api.delete_listener(listener)
    place.wait(lb)
    api.delete_pool(pool)
    place.wait(lb)
    assert ask(address) == ""
    tcp = api.get_load_balancer(lb.id).listeners[0]["id"]
    api.update_listener(tcp, allowed_cidrs=["192.0.2.0/24"])
    place.wait(lb)
    assert curl(address, "--connect-timeout", "1") == ""
    api.update_listener(tcp, allowed_cidrs=["0.0.0.0/0"])
    place.wait(lb)
    assert curl(address) != ""


def test_what_cannot_be_done_is_refused_and_leaves_nothing(place: Site, served: tuple[Any, str]) -> None:
    lb, _ = served
    api = place.user.load_balancer
    ports = {one.id for one in place.admin.network.ports(network_id=place.network.id)}
    refused = [
        lambda: place.create(unsupported),
        lambda: place.create(place.tree(protocol="HTTP", l7policies=[secure])),
        lambda: api.create_pool(protocol="UDP", lb_algorithm="LEAST_CONNECTIONS", loadbalancer_id=lb.id),
        lambda: api.create_pool(protocol="SCTP", lb_algorithm="ROUND_ROBIN", loadbalancer_id=lb.id),
        lambda: api.create_listener(protocol="PROMETHEUS", protocol_port=81, load_balancer_id=lb.id),
        lambda: api.create_l7_policy(listener_id=lb.listeners[0]["id"], action="REJECT"),
    ]
    secure = {"action": "REJECT", "rules": [{"type": "SSL_CONN_HAS_CERT", "compare_type": "EQUAL_TO", "value": "true"}]}
    unsupported = place.tree(protocol="UDP")
    unsupported["default_pool"]["lb_algorithm"] = "LEAST_CONNECTIONS"
    for one in refused:
        with pytest.raises(exceptions.HttpException) as error:
            one()
        assert error.value.status_code in (501, 400), error.value
        assert "support" in str(error.value), error.value
        assert api.get_load_balancer(lb.id).provisioning_status == "ACTIVE"
    with pytest.raises(exceptions.BadRequestException):  # by Octavia itself, after the port was made
        place.create(place.tree(), place.tree(protocol_port=81))
    until(
        "no port is left",
        lambda: ports == {one.id for one in place.admin.network.ports(network_id=place.network.id)},
        within=30,
    )


@pytest.mark.parametrize("victim", ["haproxy", "drivers.octavia.agent", "octavia.api.app"])
def test_kill_9_of_any_part(place: Site, served: tuple[Any, str], victim: str) -> None:
    lb, address = served
    words = (lb.id,) if victim == "haproxy" else ("python", victim)
    pids = processes(place, *words)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    if victim != "haproxy":
        assert curl(address) != ""
    until("served", lambda: curl(address) != "", within=5)

    def changed() -> bool:
        try:
            put_members(place, lb, members=[{"address": one, "protocol_port": PORT, "weight": 1} for one in place.members])
        except (exceptions.SDKException, ClientException):  # the API is on its way back, or the load balancer not done yet
            return False
        return True

    until("a change goes through", changed, within=60)
    assert {name_of(curl(address)) for _ in range(4)} == set(place.members)


def test_failover_rebuilds_it(place: Site, served: tuple[Any, str]) -> None:
    lb, address = served
    before = processes(place, "haproxy", lb.id)
    place.admin.load_balancer.failover_load_balancer(lb.id)
    place.wait(lb)
    until("served", lambda: curl(address) != "", within=15)
    assert not set(before) & set(processes(place, "haproxy", lb.id))


def test_a_ports_owner_keeps_it_and_switching_off_is_obeyed(place: Site) -> None:
    api, net = place.user.load_balancer, place.user.network
    port = net.create_port(network_id=place.network.id, name=f"{place.name}-own")
    place.undo.callback(net.delete_port, port)
    lb = place.wait(api.create_load_balancer(name=place.name, vip_port_id=port.id, listeners=[place.tree()]))
    place.undo.callback(place.delete, lb.id)
    assert lb.vip_address == port.fixed_ips[0]["ip_address"]
    address = place.floating(lb)
    until("served", lambda: curl(address) != "", within=15)
    api.update_load_balancer(lb, admin_state_up=False)
    place.wait(lb)
    assert curl(address) == ""
    assert api.get_load_balancer(lb.id).operating_status == "OFFLINE"
    api.update_load_balancer(lb, admin_state_up=True)
    place.wait(lb)
    assert curl(address) != ""
    place.delete(lb.id)
    kept = net.get_port(port.id)
    assert kept.device_owner == ""
    assert kept.is_port_security_enabled


def test_statistics_count(place: Site, served: tuple[Any, str]) -> None:
    lb, address = served
    for _ in range(5):
        curl(address)
    api = place.user.load_balancer
    until("counted", lambda: api.get_load_balancer_statistics(lb.id).total_connections >= 5, within=20)


def test_deleting_leaves_nothing(place: Site) -> None:
    lb = place.wait(place.create(place.tree(), place.tree(protocol="UDP", protocol_port=53)))
    port = lb.vip_port_id
    inside = [*place.inside, "sh", "-c"]
    assert run([*inside, f"ip netns list | grep -c {lb.id}"]).stdout.strip() == "1"
    place.delete(lb.id)
    assert place.admin.network.find_port(port) is None
    assert (
        run([*inside, f"ip netns list | grep -c {lb.id}; ip -o link | grep -c tap{port[:11]}"], check=False).stdout == "0\n0\n"
    )
    assert not processes(place, lb.id)


def ask(address: str) -> str:
    """Which member answers a datagram from the host ("" for none)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(1)
        link.connect((address, 53))
        try:
            link.send(b"q")
            return link.recv(999).decode().split()[0]
        except OSError:
            return ""

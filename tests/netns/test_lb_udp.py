"""UDP load balancers: the kernel balances, and the checks decide among which members."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from moyai.linux.process import run
from moyai.localcloud.drivers.octavia import balancer_tree as m
from tests.netns.lb_cloud import Cloud, changed, tree
from tests.netns.lb_world import CLIENT2, MEMBERS, PORT, VIP, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")
UDP_CHECK = m.Monitor(id="mon", type="UDP-CONNECT", delay=1, timeout=1, rise=1, fall=1)


def udp(**details: object) -> m.LoadBalancer:
    """A load balancer with one UDP listener on port 53 and both members."""
    listener = {"protocol": "UDP", "port": 53, **details.pop("listener", {})}  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
    pool = {"protocol": "UDP", **details.pop("pool", {})}  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
    return tree(listener=listener, pool=pool, **details)  # pyright: ignore[reportArgumentType, reportUnknownArgumentType]


def names(answers: list[str]) -> list[str]:
    """Who answered."""
    return [one.split()[0] if one else "" for one in answers]


def test_datagrams_go_to_members_by_weight_and_come_back_by_the_vip(cloud: Cloud) -> None:
    lb = cloud.apply(changed(udp(), 0, weight=3))
    answers = cloud.net.ask(8)
    assert {one.split()[1] for one in answers} == {VIP}
    assert names(answers).count(MEMBERS[0]) == 6
    assert names(answers).count(MEMBERS[1]) == 2
    assert cloud.plane(lb).haproxy.pid() is None  # nothing to do for it
    cloud.delete(lb)
    assert names(cloud.net.ask(1)) == [""]


def test_a_socket_stays_with_its_member_until_that_one_goes(cloud: Cloud) -> None:
    lb = cloud.apply(udp(monitor=UDP_CHECK))
    shown = cloud.store.operating
    first, second = lb.pools[0].members
    until("online", lambda: shown.get(first.id) == shown.get(second.id) == "ONLINE")
    assert len(set(names(cloud.net.ask(5, same_source=True)))) == 1
    with cloud.net.socket() as link:
        served = link.ask()
        other = next(one for one in MEMBERS if one != served)
        cloud.net.stop(served)
        gone = next(one.id for one in lb.pools[0].members if one.address == served)
        until("seen", lambda: shown[gone] == "ERROR", within=4)
        assert link.ask() == other
        assert shown[lb.id] == "DEGRADED"
        cloud.net.start(served)
        until("back", lambda: shown[gone] == "ONLINE")
    assert set(names(cloud.net.ask(4))) == set(MEMBERS)


def test_a_member_whose_host_is_gone(cloud: Cloud) -> None:
    lb = cloud.apply(udp(monitor=UDP_CHECK))
    first, second = lb.pools[0].members
    shown = cloud.store.operating
    until("online", lambda: shown.get(first.id) == shown.get(second.id) == "ONLINE")
    run(["ip", "-n", cloud.net.ns(first.address), "link", "set", "eth0", "down"])
    until("seen", lambda: shown[first.id] == "ERROR", within=15)
    for _ in range(10):
        time.sleep(0.3)
        assert shown[first.id] == "ERROR"  # and does not flap
    assert names(cloud.net.ask(4)) == [second.address] * 4


def test_draining_keeps_what_a_member_has(cloud: Cloud) -> None:
    lb = cloud.apply(udp())
    with cloud.net.socket() as link:
        served = link.ask()
        n = next(n for n, one in enumerate(lb.pools[0].members) if one.address == served)
        cloud.apply(changed(lb, n, weight=0))
        assert link.ask() == served
        assert served not in names(cloud.net.ask(4))
        gone = replace(lb.pools[0], members=tuple(one for one in lb.pools[0].members if one.address != served))
        cloud.apply(replace(lb, pools=(gone,)))
        assert link.ask() not in ("", served)


@pytest.mark.parametrize("how", [{"algorithm": "SOURCE_IP"}, {"persistence": m.Persistence(type="SOURCE_IP")}])
def test_a_client_stays_with_its_member(cloud: Cloud, how: dict[str, object]) -> None:
    lb = cloud.apply(udp(pool=how))
    mine = set(names(cloud.net.ask(6)))
    assert len(mine) == 1
    cloud.apply(replace(lb, listeners=(replace(lb.listeners[0], connection_limit=1000),)))
    assert set(names(cloud.net.ask(3))) == mine


def test_source_ip_and_port(cloud: Cloud) -> None:
    cloud.apply(udp(pool={"algorithm": "SOURCE_IP_PORT"}))
    assert set(names(cloud.net.ask(24))) == set(MEMBERS)


def test_allowed_cidrs_and_nobody_at_home(cloud: Cloud) -> None:
    lb = cloud.apply(udp(listener={"allowed_cidrs": (f"{CLIENT2}/32", "10.99.0.101/32", "192.0.2.0/24")}))
    assert names(cloud.net.ask(1)) == [""]
    assert names(cloud.net.ask(1, client=CLIENT2)) != [""]
    cloud.apply(replace(lb, pools=(replace(lb.pools[0], members=()),)))
    with cloud.net.socket(CLIENT2) as link:
        assert link.ask() == ""
        cloud.apply(lb)
        assert link.ask() != ""  # the same socket, which the kernel must not remember as unanswered


def test_members_of_udp_may_be_checked_over_http(cloud: Cloud) -> None:
    check = m.Monitor(id="mon", type="HTTP", delay=1, timeout=1, rise=1, fall=1)
    lb = changed(changed(udp(monitor=check), 0, monitor_port=PORT), 1, monitor_port=PORT)
    cloud.apply(lb)
    first, second = lb.pools[0].members
    shown = cloud.store.operating
    until("online", lambda: shown.get(first.id) == shown.get(second.id) == "ONLINE")
    cloud.net.status(first.address, 503)
    until("seen", lambda: shown[first.id] == "ERROR", within=4)
    until("out of it", lambda: names(cloud.net.ask(4)) == [second.address] * 4, within=2)


def test_a_udp_listener_that_goes_takes_its_flows_along(cloud: Cloud) -> None:
    lb = cloud.apply(udp())
    with cloud.net.socket() as link:
        assert link.ask() != ""
        cloud.apply(replace(lb, listeners=()))
        assert link.ask() == ""

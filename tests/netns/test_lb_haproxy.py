"""Load balancers on the real kernel with the real HAProxy, wanted by a store of the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace

import pytest

from moyai.linux import netns
from moyai.localcloud.drivers.octavia import balancer_tree as m
from moyai.localcloud.drivers.octavia.data_plane import Plane
from moyai.localcloud.drivers.octavia.vip_link import namespace
from tests.netns.lb_cloud import Cloud, changed, tree
from tests.netns.lb_world import CLIENT, CLIENT2, MEMBERS, VIP, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")


TCP_CHECK = m.Monitor(id="mon", type="TCP", delay=1, timeout=1, rise=1, fall=1)


def test_tcp_is_served_by_both_members_from_the_vip_itself(cloud: Cloud) -> None:
    lb = cloud.apply(tree())
    assert set(cloud.net.names(6)) == set(MEMBERS)
    assert f"peer={VIP}" in cloud.net.curl()
    assert cloud.store.operating[lb.id] == "ONLINE"
    assert cloud.store.operating[lb.pools[0].members[0].id] == "NO_MONITOR"
    cloud.delete(lb)
    assert cloud.net.curl() == ""
    assert not cloud.plane(lb).there()
    assert not netns.pids(namespace(lb.id))
    assert cloud.store.released == [lb.vip_port_id]
    assert [one.name for one in cloud.root.iterdir() if one.name not in ("lock", "lbd.sock")] == []


def test_health_becomes_status_within_two_seconds(cloud: Cloud) -> None:
    lb = cloud.apply(tree(monitor=TCP_CHECK))
    first, second = lb.pools[0].members
    shown = cloud.store.operating
    until("both online", lambda: shown.get(first.id) == shown.get(second.id) == "ONLINE")
    cloud.net.stop(first.address)
    until("one lost", lambda: shown[first.id] == "ERROR", within=4)
    until("degraded", lambda: shown[lb.id] == shown[lb.pools[0].id] == shown[lb.listeners[0].id] == "DEGRADED", within=1)
    assert set(cloud.net.names(6)) == {second.address}
    cloud.net.stop(second.address)
    until("all lost", lambda: shown[lb.id] == shown[lb.pools[0].id] == shown[lb.listeners[0].id] == "ERROR", within=4)
    cloud.net.start(first.address)
    until("one back", lambda: shown[first.id] == "ONLINE" and shown[lb.id] == "DEGRADED", within=4)


def test_a_reload_refuses_no_connection_and_keeps_what_the_checks_found(cloud: Cloud) -> None:
    lb = cloud.apply(tree(monitor=TCP_CHECK))
    dead = lb.pools[0].members[0]
    cloud.net.stop(dead.address)
    until("seen", lambda: cloud.store.operating.get(dead.id) == "ERROR")
    script = f"for i in $(seq 150); do curl -s -m 3 http://{VIP}/ | grep ^name= || echo REFUSED; done"
    load = subprocess.Popen([*netns.prefix(cloud.net.ns(CLIENT)), "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    for weight in range(2, 8):
        cloud.apply(changed(lb, 1, weight=weight))
        assert cloud.store.operating[dead.id] == "ERROR"
    answers = load.communicate()[0].split()
    assert len(answers) == 150
    assert set(answers) == {f"name={lb.pools[0].members[1].address}"}


def test_a_killed_haproxy_and_a_killed_daemon_come_back(cloud: Cloud) -> None:
    lb = cloud.apply(tree())
    pid = cloud.plane(lb).haproxy.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until("served again", lambda: cloud.net.curl() != "", within=3)
    assert cloud.plane(lb).haproxy.pid() != pid
    pid = cloud.plane(lb).haproxy.pid()
    cloud.stop()
    assert cloud.net.curl() != ""
    cloud.start()
    cloud.apply(changed(lb, 0, weight=5))
    # as after a reboot: no process, no namespace, only files
    cloud.stop()
    Plane(cloud.root, lb.id).haproxy.stop()
    netns.remove(namespace(lb.id))
    cloud.start()
    until("recreated", lambda: cloud.net.curl() != "", within=10)


def test_what_no_load_balancer_wants_is_taken_away_at_the_start(cloud: Cloud) -> None:
    lb = cloud.apply(tree())
    cloud.stop()
    del cloud.store.trees[lb.id]
    cloud.start()
    until("gone", lambda: not cloud.plane(lb).there())


def test_a_creation_that_was_rolled_back_leaves_nothing(cloud: Cloud) -> None:
    lb = tree()
    cloud.call("port", lb.id, lb.vip_port_id)
    until("released", lambda: cloud.store.released == [lb.vip_port_id])
    until("gone", lambda: not cloud.plane(lb).there())


def test_a_pool_goes_with_its_members(cloud: Cloud) -> None:
    lb = cloud.apply(tree(monitor=TCP_CHECK))
    pool = replace(lb.pools[0], status=m.PENDING_DELETE)
    cloud.apply(replace(lb, listeners=(replace(lb.listeners[0], pool_id=None),), pools=(pool,)))
    for one in ("mon", pool.id, *(member.id for member in pool.members)):
        assert cloud.store.provisioning[one] == m.DELETED


def test_weights_drain_and_backup(cloud: Cloud) -> None:
    lb = cloud.apply(changed(tree(), 0, weight=3))
    names = cloud.net.names(8)
    assert names.count(MEMBERS[0]) == 6
    assert names.count(MEMBERS[1]) == 2
    cloud.apply(changed(lb, 0, weight=0))
    assert set(cloud.net.names(4)) == {MEMBERS[1]}
    cloud.apply(changed(lb, 0, backup=True))
    assert set(cloud.net.names(4)) == {MEMBERS[1]}
    cloud.apply(changed(lb, 1, enabled=False))
    assert set(cloud.net.names(4)) == {MEMBERS[0]}


def test_switched_off_objects_serve_nothing(cloud: Cloud) -> None:
    lb = cloud.apply(tree())
    listener, pool = lb.listeners[0], lb.pools[0]
    cloud.apply(replace(lb, enabled=False))
    assert cloud.net.curl() == ""
    assert cloud.store.operating[lb.id] == "OFFLINE"
    cloud.apply(replace(lb, listeners=(replace(listener, enabled=False),)))
    assert cloud.net.curl() == ""
    cloud.apply(replace(lb, pools=(replace(pool, enabled=False),)))
    assert cloud.net.curl() == ""
    cloud.apply(lb)
    assert cloud.net.curl() != ""


def test_http_headers_cookies_and_checks(cloud: Cloud) -> None:
    headers = ("X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto")
    check = m.Monitor(
        id="mon", type="HTTP", delay=1, timeout=1, rise=1, fall=1, url_path="/a?b=#c", expected_codes="200,202-204",
        http_version=1.1, domain_name="www.example.org",
    )  # fmt: skip
    lb = cloud.apply(
        tree(
            listener={"protocol": "HTTP", "insert_headers": headers},
            pool={"protocol": "HTTP", "persistence": m.Persistence(type="HTTP_COOKIE")},
            monitor=check,
        )
    )
    body = cloud.net.curl().lower()
    assert f"x-forwarded-for: {CLIENT}" in body
    assert "x-forwarded-port: 80" in body
    assert "x-forwarded-proto: http" in body
    jar = str(cloud.root / "jar")
    assert len(set(cloud.net.names(6, "-b", jar, "-c", jar))) == 1
    shown = cloud.store.operating
    first = lb.pools[0].members[0]
    until("online", lambda: shown.get(first.id) == "ONLINE")
    cloud.net.status(first.address, 203)
    time.sleep(1.5)
    assert shown[first.id] == "ONLINE"
    cloud.net.status(first.address, 500)
    until("failing", lambda: shown[first.id] == "ERROR", within=4)
    pool = replace(lb.pools[0], persistence=m.Persistence(type="APP_COOKIE", cookie_name="JSESSIONID"))
    cloud.net.status(first.address, 200)
    cloud.apply(replace(lb, pools=(pool,)))
    until("back", lambda: shown[first.id] == "ONLINE", within=4)
    cloud.net.curl("-c", jar + "2", path="/login")
    assert len(set(cloud.net.names(6, "-b", jar + "2"))) == 1


@pytest.mark.parametrize("protocol", ["PROXY", "PROXYV2"])
def test_proxy_protocol(cloud: Cloud, protocol: str) -> None:
    cloud.apply(tree(pool={"protocol": protocol}))
    body = cloud.net.curl()
    assert f"PROXY TCP4 {CLIENT} {VIP}" in body or "PROXYV2" in body.splitlines()


def test_source_ip_persistence_survives_reloads(cloud: Cloud) -> None:
    lb = cloud.apply(tree(pool={"persistence": m.Persistence(type="SOURCE_IP")}))
    mine = set(cloud.net.names(6))
    assert len(mine) == 1
    for weight in (2, 3):
        cloud.apply(changed(lb, 1, weight=weight))
        time.sleep(0.3)
        assert set(cloud.net.names(3)) == mine


@pytest.mark.parametrize("algorithm", ["LEAST_CONNECTIONS", "SOURCE_IP", "SOURCE_IP_PORT"])
def test_other_algorithms(cloud: Cloud, algorithm: str) -> None:
    cloud.apply(tree(pool={"algorithm": algorithm}))
    names = set(cloud.net.names(16))
    assert names == set(MEMBERS) if algorithm != "SOURCE_IP" else len(names) == 1


def test_allowed_cidrs(cloud: Cloud) -> None:
    lb = cloud.apply(tree(listener={"allowed_cidrs": (f"{CLIENT2}/32", "192.0.2.0/24")}))
    assert cloud.net.curl("--connect-timeout", "1") == ""
    assert cloud.net.curl(client=CLIENT2) != ""
    cloud.apply(replace(lb, listeners=(replace(lb.listeners[0], allowed_cidrs=("10.99.0.0/24",)),)))
    assert cloud.net.curl() != ""


@pytest.mark.parametrize("kind", ["PING", "HTTP", "TCP"])
def test_monitor_address_and_port(cloud: Cloud, kind: str) -> None:
    """The first member is checked on a port where nothing listens, or at an address that nobody has."""
    lb = tree(monitor=replace(TCP_CHECK, type=kind))
    lb = changed(lb, 0, **({"monitor_address": "10.99.0.77"} if kind == "PING" else {"monitor_port": 81}))
    cloud.apply(lb)
    first, second = lb.pools[0].members
    shown = cloud.store.operating
    until("seen", lambda: shown.get(first.id) == "ERROR" and shown.get(second.id) == "ONLINE")


def test_connection_limit_and_wrong_configuration(cloud: Cloud) -> None:
    lb = cloud.apply(tree(listener={"connection_limit": 1}))
    assert cloud.net.curl() != ""
    wrong = replace(lb, listeners=(replace(lb.listeners[0], port=99999),))
    cloud.store.want(wrong)
    until("refused", lambda: cloud.store.provisioning[lb.id] == m.ERROR)
    assert cloud.net.curl() != ""  # the former one goes on
    cloud.apply(lb)

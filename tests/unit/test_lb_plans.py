"""The load balancers' pure parts: tree → HAProxy's text, tree and health → nftables rules, tree and health → statuses."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moyai.linux.haproxy import HAProxy, Row
from moyai.linux.nft import Flow, parse_flows
from moyai.linux.process import run
from moyai.localcloud.drivers.octavia import balancer_tree, haproxy_config, nft_rules, operating_status, statistics
from moyai.localcloud.drivers.octavia.balancer_tree import Listener, LoadBalancer, Member, Monitor, Persistence, Pool
from moyai.localcloud.drivers.octavia.data_plane import health_of, udp_checks
from moyai.localcloud.drivers.octavia.udp_checks import Count

FILES = HAProxy(Path("/lb/x"), "ns", socket_path=Path("/lb/x.s"))
A = Member(id="a", address="10.0.0.1", port=8080)
B = Member(id="b", address="10.0.0.2", port=8080)
MONITOR = Monitor(id="h", type="TCP", delay=5, timeout=3, rise=2, fall=3)


def tree(listener: Listener | None = None, pool: Pool | None = None) -> LoadBalancer:
    return LoadBalancer(
        id="lb",
        vip_address="10.0.0.9",
        vip_port_id="port",
        listeners=(listener or Listener(id="l", protocol="TCP", port=80, pool_id="p"),),
        pools=(pool or Pool(id="p", protocol="TCP", members=(B, A), monitor=MONITOR),),
    )


UDP = Listener(id="l", protocol="UDP", port=53, pool_id="p")
UDP_POOL = Pool(id="p", protocol="UDP", members=(A, B))


def backend(balancer: LoadBalancer) -> str:
    text = haproxy_config.render(balancer, FILES).text
    assert text is not None
    return text[text.index("frontend l\n") :]


def test_the_text_of_a_tcp_balancer() -> None:
    assert backend(tree()) == (
        "frontend l\n    mode tcp\n    bind 10.0.0.9:80\n    timeout client 50000ms\n"
        "    tcp-request connection set-var(sess.sport) src_port\n    default_backend p:l\n"
        "backend p:l\n    mode tcp\n    balance roundrobin\n    timeout connect 5000ms\n    timeout server 50000ms\n"
        "    option allbackups\n    timeout check 3s\n"
        "    server a 10.0.0.1:8080 weight 1 check inter 5s fall 3 rise 2\n"
        "    server b 10.0.0.2:8080 weight 1 check inter 5s fall 3 rise 2\n"
    )


def test_the_text_does_not_depend_on_the_databases_order() -> None:
    turned = replace(tree().pools[0], members=(A, B))
    assert backend(tree()) == backend(tree(pool=turned))


def test_what_is_off_or_goes_is_not_in_the_text() -> None:
    gone = replace(A, status=balancer_tree.PENDING_DELETE)
    off = replace(B, enabled=False)
    assert "server" not in backend(tree(pool=Pool(id="p", protocol="TCP", members=(gone, off)))).replace("timeout server", "")
    assert haproxy_config.render(replace(tree(), enabled=False), FILES).text is None
    assert "check" not in backend(tree(pool=replace(tree().pools[0], monitor=replace(MONITOR, enabled=False))))


def every_kind() -> list[LoadBalancer]:
    """One tree for each feature, for HAProxy itself to judge."""
    http = Listener(
        id="l",
        protocol="HTTP",
        port=80,
        pool_id="p",
        connection_limit=5,
        timeout_tcp_inspect=100,
        insert_headers=("X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto"),
    )
    tcp = tree().pools[0]
    full = replace(A, monitor_address="10.0.0.3", monitor_port=1, backup=True, weight=256)
    monitors = [
        Monitor(id="h", type=kind, url_path="/x?y=#z$[%]\\", domain_name="a.b", http_version=1.1, expected_codes="200, 202-204")
        for kind in ("HTTP", "HTTPS", "TCP", "TLS-HELLO", "PING")
    ]
    stickies = [Persistence(type="HTTP_COOKIE"), Persistence(type="APP_COOKIE", cookie_name="J"), Persistence(type="SOURCE_IP")]
    return [
        *(tree(http, replace(tcp, protocol="HTTP", members=(full,), monitor=one)) for one in monitors),
        *(tree(http, replace(tcp, persistence=one)) for one in stickies),
        *(tree(pool=replace(tcp, algorithm=one)) for one in ("LEAST_CONNECTIONS", "SOURCE_IP", "SOURCE_IP_PORT")),
        *(tree(pool=replace(tcp, protocol=one)) for one in ("PROXY", "PROXYV2")),
        tree(UDP, replace(UDP_POOL, monitor=monitors[0])),
        replace(tree(), vip_address="::1"),
        tree(replace(http, pool_id=None)),
    ]


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed")
@pytest.mark.parametrize("n", range(len(every_kind())))
def test_haproxy_takes_every_text(n: int, tmp_path: Path) -> None:
    files = HAProxy(tmp_path, "ns", socket_path=tmp_path / "s")
    text = haproxy_config.render(every_kind()[n], files, ping="/bin/true").text
    assert text is not None
    files.state_path.write_text("1\n")
    (tmp_path / "cfg").write_text(text)
    done = run(["haproxy", "-c", "-L", "moyai", "-f", tmp_path / "cfg"], check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_ping_goes_to_the_monitor_address() -> None:
    pool = Pool(
        id="p", protocol="TCP", members=(replace(A, monitor_address="10.0.0.77"), B), monitor=replace(MONITOR, type="PING")
    )
    program = haproxy_config.render(tree(pool=pool), FILES, ping="/p").ping
    assert program is not None
    assert "a) to=10.0.0.77 ;;" in program
    assert "b)" not in program


# ---- rules


def rules(balancer: LoadBalancer, **health: bool | None) -> str:
    return json.dumps(nft_rules.render(balancer, health).commands)


def test_tcp_needs_no_rules_and_allowed_cidrs_are_merged() -> None:
    assert nft_rules.render(tree(), {}).commands == ()
    some = Listener(id="l", protocol="TCP", port=80, allowed_cidrs=("10.1.0.0/16", "10.0.0.0/8", "2001:db8::/32"))
    text = rules(tree(some))
    assert '{"prefix": {"addr": "10.0.0.0", "len": 8}}' in text
    assert "10.1.0.0" not in text
    assert "2001" not in text
    assert rules(tree(replace(some, allowed_cidrs=("0.0.0.0/0",)))) == "[]"
    nobody = rules(tree(replace(some, allowed_cidrs=("2001:db8::/32",))))
    assert '"drop"' in nobody
    assert "saddr" not in nobody


def test_udp_by_weight() -> None:
    pool = replace(UDP_POOL, members=(replace(A, weight=4), replace(B, weight=2)))
    text = rules(tree(UDP, pool))
    assert '"numgen": {"mode": "inc", "mod": 3, "offset": 0}' in text
    assert '[[{"range": [0, 1]}, {"concat": ["10.0.0.1", 8080]}], [2, {"concat": ["10.0.0.2", 8080]}]]' in text


def test_who_gets_new_clients_and_whose_old_ones_stay() -> None:
    balancer = tree(UDP, replace(UDP_POOL, members=(A, replace(B, weight=0))))
    assert nft_rules.choose(balancer.pools[0].live_members, {}) == (A,)
    assert nft_rules.render(balancer, {}).answering == {53: {("10.0.0.1", 8080), ("10.0.0.2", 8080)}}
    assert nft_rules.render(balancer, {"a": False}).answering == {53: {("10.0.0.2", 8080)}}
    assert "dnat" not in rules(balancer, a=False).replace('"right": "dnat"', "")
    spare = replace(B, backup=True)
    assert nft_rules.choose((A, spare), {}) == (A,)
    assert nft_rules.choose((A, spare), {"a": False}) == (spare,)
    assert nft_rules.choose((A, spare), {"a": None}) == (A,)


@pytest.mark.exhaustive
@given(st.lists(st.integers(1, 256), min_size=2, max_size=6), st.data())
def test_a_member_that_goes_moves_only_its_own_clients(weights: list[int], data: st.DataObject) -> None:
    members = [Member(id=str(n), address=f"10.0.1.{n}", port=53, weight=weight) for n, weight in enumerate(weights)]
    before = nft_rules.slots(members)
    gone = data.draw(st.sampled_from(members))
    after = nft_rules.slots([one for one in members if one != gone])
    assert all(new == old for old, new in zip(before, after, strict=True) if old != gone)


def test_slots_follow_the_weights() -> None:
    share = Counter(one.id for one in nft_rules.slots([replace(A, weight=3), B]))
    assert 0.68 < share["a"] / nft_rules.SLOTS < 0.82


def test_flows_of_conntracks_listing() -> None:
    text = (
        "udp 17 29 src=10.0.0.5 dst=10.0.0.9 sport=4000 dport=53 src=10.0.0.1 dst=10.0.0.9 sport=8080 dport=4000 use=1\n"
        "udp 17 9 src=10.0.0.6 dst=10.0.0.9 sport=4 dport=54 [UNREPLIED] src=10.0.0.9 dst=10.0.0.6 sport=54 dport=4 use=1\n"
    )
    assert parse_flows(text) == {Flow("10.0.0.9", 53, "10.0.0.1", 8080), Flow("10.0.0.9", 54, "10.0.0.9", 54)}


# ---- health and statuses


def row(server: str, status: str, *, check: str = "L4OK") -> Row:
    return Row("p:l", server, status, check, 0, 0, 0, 0, 0)


def test_haproxys_words_for_health() -> None:
    rows = [row("a", "UP 1/3"), row("b", "DOWN 1/2", check="L4CON")]
    assert health_of(tree(), rows) == {"a": True, "b": False}
    assert health_of(tree(), [row("a", "UP", check="INI"), row("b", "DRAIN")]) == {"a": None, "b": True}
    assert health_of(tree(pool=replace(tree().pools[0], monitor=None)), rows) == {}


@pytest.mark.parametrize(
    ("health", "members", "above"),
    [
        ({"a": True, "b": True}, ("ONLINE", "ONLINE"), "ONLINE"),
        ({"a": False, "b": True}, ("ERROR", "ONLINE"), "DEGRADED"),
        ({"a": False, "b": False}, ("ERROR", "ERROR"), "ERROR"),
        ({"a": None, "b": None}, ("OFFLINE", "OFFLINE"), "ONLINE"),
    ],
)
def test_statuses_follow_from_health(health: dict[str, bool | None], members: tuple[str, str], above: str) -> None:
    found = operating_status.derive(tree(), health)
    assert (found["members"]["a"], found["members"]["b"]) == members
    assert (found["pools"]["p"], found["listeners"]["l"], found["loadbalancers"]["lb"]) == (above,) * 3
    assert found["healthmonitors"] == {"h": "ONLINE"}


def test_statuses_of_what_is_off_unused_or_unchecked() -> None:
    pool = tree().pools[0]
    assert operating_status.derive(tree(pool=replace(pool, monitor=None)), {})["members"] == {
        "a": "NO_MONITOR",
        "b": "NO_MONITOR",
    }
    off = operating_status.derive(replace(tree(), enabled=False), {})
    assert set(off["members"].values()) | {off["pools"]["p"], off["listeners"]["l"], off["loadbalancers"]["lb"]} == {"OFFLINE"}
    drained = tree(pool=replace(pool, members=(replace(A, weight=0), B)))
    assert operating_status.derive(drained, {"a": True, "b": True})["members"] == {"a": "DRAINING", "b": "ONLINE"}
    unused = replace(tree(), listeners=())
    assert operating_status.derive(unused, {})["pools"] == {"p": "OFFLINE"}
    assert operating_status.derive(unused, {})["loadbalancers"] == {"lb": "ONLINE"}


def test_every_object_is_reported_and_what_is_in_a_pool_goes_with_it() -> None:
    gone = tree(pool=replace(tree().pools[0], status="PENDING_DELETE"))
    assert [(kind, one.id, one.status) for kind, one in balancer_tree.things(gone)] == [
        ("members", "b", "PENDING_DELETE"),
        ("members", "a", "PENDING_DELETE"),
        ("healthmonitors", "h", "PENDING_DELETE"),
        ("pools", "p", "PENDING_DELETE"),
        ("listeners", "l", "ACTIVE"),
        ("loadbalancers", "lb", "ACTIVE"),
    ]
    found = operating_status.derive(gone, {})
    for kind, one in balancer_tree.things(gone):
        assert one.status == "PENDING_DELETE" or one.id in found[kind]


def test_udp_checks() -> None:
    pool = replace(UDP_POOL, members=(replace(A, monitor_port=1), B), monitor=replace(MONITOR, type="UDP-CONNECT"))
    assert [(one.address, one.port) for one in udp_checks(tree(UDP, pool))] == [("10.0.0.1", 1), ("10.0.0.2", 8080)]
    assert udp_checks(tree()) == []


def test_a_count_changes_its_mind_after_so_many_in_a_row() -> None:
    count = Count(rise=2, fall=3)
    results = [True, False, False, True, False, False, False, True, True]
    found = [count.add(one, now=10.0 * number) for number, one in enumerate(results)]
    assert found == [True, False, False, False, False, False, True, False, True]
    assert count.works is True


def test_silence_soon_after_a_failure_is_no_success() -> None:
    count = Count(rise=1, fall=1)
    assert count.add(False, now=0.0)
    # a busy host reports that a neighbour is away only after the next datagram's time
    assert [count.add(True, now=now) for now in (1.4, 1.9)] == [False, False]
    assert not count.add(False, now=1.95)
    assert [(now, count.add(True, now=now)) for now in (3.9, 4.0)] == [(3.9, False), (4.0, True)]


def test_statistics_are_gains() -> None:
    rows = [Row("l", "FRONTEND", "OPEN", "", 2, 10, 100, 200, 1)]
    first = statistics.read(tree(), rows, datagrams={})["l"]
    assert first == statistics.Counters(100, 200, 2, 10, 1)
    again = statistics.Counters(50, 300, 0, 12, 0)
    assert again.since(first) == statistics.Counters(50, 100, 0, 2, 0)  # bytes_in began again
    counted = {"l original": (3, 90), "l reply": (2, 60)}
    assert statistics.read(tree(UDP, UDP_POOL), [], datagrams=counted)["l"] == statistics.Counters(90, 60, 0, 3, 0)

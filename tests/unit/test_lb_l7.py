"""L7 policies and additional VIPs, the pure parts: the tree → HAProxy's text, nftables rules and statuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moyai.linux import haproxy
from moyai.linux.haproxy import HAProxy
from moyai.linux.process import run
from moyai.localcloud.drivers.octavia import balancer_tree, haproxy_config, l7_policies, nft_rules, operating_status, reports
from moyai.localcloud.drivers.octavia.balancer_tree import L7Policy, L7Rule, Listener, LoadBalancer, Member, Pool

FILES = HAProxy(Path("/lb/x"), "ns", socket_path=Path("/lb/x.s"))
RULE = L7Rule(id="r", type="PATH", compare_type="STARTS_WITH", value="/a")
REJECT = L7Policy(id="reject", action="REJECT", position=3, rules=(RULE,))
TO_URL = L7Policy(id="url", action="REDIRECT_TO_URL", position=2, rules=(RULE,), redirect_url="http://b/%20'")
TO_POOL = L7Policy(id="pool", action="REDIRECT_TO_POOL", position=1, rules=(RULE,), redirect_pool_id="q")


def tree(*policies: L7Policy) -> LoadBalancer:
    listener = Listener(id="l", protocol="HTTP", port=80, pool_id="p", policies=policies)
    member = Member(id="m", address="10.0.0.1", port=1)
    pools = tuple(Pool(id=one, protocol="HTTP", members=(replace(member, id=f"m{one}"),)) for one in ("p", "q", "unused"))
    return LoadBalancer(id="lb", vip_address="10.0.0.9", vip_port_id="port", listeners=(listener,), pools=pools)


def lines(*policies: L7Policy) -> list[str]:
    balancer = tree(*policies)
    return l7_policies.lines(balancer, balancer.listeners[0])


def test_octavias_order_whatever_the_positions() -> None:
    actions = [line.split(" if ")[0] for line in lines(TO_POOL, TO_URL, REJECT) if " if " in line]
    assert actions == [
        "http-request deny",
        r"http-request redirect location 'http://b/%%20'\''' code 302",
        "use_backend q:l",
    ]
    second = replace(TO_URL, id="2", position=1, redirect_http_code=307)
    assert [line.rpartition(" code ")[2][:3] for line in lines(TO_URL, second) if " if " in line] == ["307", "302"]


def test_all_rules_of_a_policy_must_hold_and_one_can_be_turned() -> None:
    other = L7Rule(id="s", type="HEADER", compare_type="EQUAL_TO", key="X", value="it's", invert=True)
    assert lines(replace(REJECT, rules=(other, RULE))) == [
        "acl r path -m beg -- '/a'",
        r"""acl s 'req.hdr("X")' -m str -- 'it'\''s'""",
        "http-request deny if r !s",
    ]


def test_what_is_off_goes_or_has_no_rule_applies_to_nothing() -> None:
    off, gone = replace(RULE, enabled=False), replace(RULE, status=balancer_tree.PENDING_DELETE)
    nothing = (
        replace(REJECT, enabled=False),
        replace(REJECT, status=balancer_tree.PENDING_DELETE),
        replace(REJECT, rules=()),
        replace(REJECT, rules=(off, gone)),
        replace(TO_POOL, redirect_pool_id="nobody's"),
    )
    for policy in nothing:
        assert lines(policy) == []


def text(balancer: LoadBalancer) -> str:
    found = haproxy_config.render(balancer, FILES).text
    assert found is not None
    return found


def test_only_pools_that_can_be_reached_are_served_each_once() -> None:
    balancer = tree(TO_POOL, replace(TO_POOL, id="again"), replace(TO_POOL, id="own", redirect_pool_id="p"))
    assert [line for line in text(balancer).splitlines() if line.startswith("backend ")] == ["backend p:l", "backend q:l"]


def test_every_vip_is_bound_and_guarded() -> None:
    balancer = replace(tree(), additional_vips=("fd00::9", "10.1.0.9"))
    assert [line.strip() for line in text(balancer).splitlines() if line.strip().startswith("bind 1") or "bind [" in line] == [
        "bind 10.0.0.9:80",
        "bind 10.1.0.9:80",
        "bind [fd00::9]:80",
    ]
    listener = replace(balancer.listeners[0], allowed_cidrs=("10.1.0.0/16",))
    commands = nft_rules.render(replace(balancer, listeners=(listener,)), {}).commands
    dropping = [json.dumps(one) for one in commands if '"drop"' in json.dumps(one)]
    assert [vip for vip in balancer.vips if any(f'"right": "{vip}"' in one for one in dropping)] == list(balancer.vips)


def test_udp_goes_to_members_of_the_vips_family_and_is_limited_once() -> None:
    members = (Member(id="4", address="10.0.0.1", port=53), Member(id="6", address="fd00::1", port=53))
    udp = Listener(id="l", protocol="UDP", port=53, pool_id="p", connection_limit=7)
    pool = Pool(id="p", protocol="UDP", members=members)
    balancer = replace(tree(), additional_vips=("fd00::9",), listeners=(udp,), pools=(pool,))
    found = json.dumps(nft_rules.render(balancer, {}).commands)
    assert '{"dnat": {"family": "ip", "addr": "10.0.0.1", "port": 53}}' in found
    assert '{"dnat": {"family": "ip6", "addr": "fd00::1", "port": 53}}' in found
    assert found.count('"ct count"') == 1


def test_statuses_of_policies_rules_and_of_a_listener_with_several_pools() -> None:
    monitored = [replace(one, monitor=balancer_tree.Monitor(id=f"h{one.id}", type="TCP")) for one in tree().pools]
    balancer = replace(tree(TO_POOL, replace(REJECT, enabled=False)), pools=tuple(monitored))
    found = operating_status.derive(balancer, {"mp": True, "mq": False})
    assert found["l7policies"] == {"pool": "ONLINE", "reject": "OFFLINE"}
    assert found["l7rules"] == {"r": "ONLINE"}
    assert found["pools"] == {"p": "ONLINE", "q": "ERROR", "unused": "OFFLINE"}
    assert found["listeners"] == {"l": "DEGRADED"}
    assert operating_status.derive(balancer, {"mp": False, "mq": False})["listeners"] == {"l": "ERROR"}


def test_policies_are_reported_and_go_with_their_listener() -> None:
    pending = replace(REJECT, status="PENDING_CREATE", rules=(replace(RULE, status="PENDING_CREATE"),))
    report = reports.applied(tree(pending), operating_status.derive(tree(pending), {}))
    assert report["l7policies"] == [{"id": "reject", "provisioning_status": "ACTIVE", "operating_status": "ONLINE"}]
    assert report["l7rules"] == [{"id": "r", "provisioning_status": "ACTIVE", "operating_status": "ONLINE"}]
    leaving = tree(REJECT)
    leaving = replace(leaving, listeners=(replace(leaving.listeners[0], status="PENDING_DELETE"),))
    report = reports.applied(leaving, operating_status.derive(leaving, {}))
    for kind in ("l7rules", "l7policies", "listeners"):
        assert [one["provisioning_status"] for one in report[kind]] == ["DELETED"], kind


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=40)


@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=TEXT, key=TEXT, address=TEXT)
def test_haproxy_takes_any_text_as_one_word(value: str, key: str, address: str, tmp_path: Path) -> None:
    rules = tuple(
        L7Rule(id=f"r{n}", type=kind, compare_type="CONTAINS", key=key, value=value)
        for n, kind in enumerate(("HOST_NAME", "PATH", "HEADER", "COOKIE"))
    )
    balancer = tree(replace(REJECT, rules=rules), replace(TO_URL, redirect_url=address, rules=rules))
    files = HAProxy(tmp_path, "ns", socket_path=tmp_path / "s")
    found = haproxy_config.render(balancer, files).text
    assert found is not None
    # the users' texts add no line: all have the words of the same tree without them
    calm = tuple(replace(one, key="X", value="x") for one in rules)
    plain = haproxy_config.render(tree(replace(REJECT, rules=calm), replace(TO_URL, redirect_url="x", rules=calm)), files).text
    assert plain is not None
    assert [line.split()[:1] for line in found.split("\n")] == [line.split()[:1] for line in plain.split("\n")]
    files.state_path.write_text("1\n")
    (tmp_path / "cfg").write_text(found)
    done = run(["haproxy", "-c", "-L", "moyai", "-f", tmp_path / "cfg"], check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_no_word_holds_a_nul() -> None:
    with pytest.raises(ValueError, match="NUL"):
        haproxy.word("a\0b")

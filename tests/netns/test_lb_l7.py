"""L7 policies and additional VIPs on the real kernel with the real HAProxy: what a client sees."""

from __future__ import annotations

import os
import uuid
from dataclasses import replace

import pytest

from moyai.linux import netns
from moyai.linux.process import run
from moyai.localcloud.drivers.octavia import balancer_tree as m
from tests.netns.lb_cloud import Cloud, tree
from tests.netns.lb_world import CLIENT, MEMBERS, VIP, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")

URL = "http://elsewhere.example/a%20b?c=%[src]&d='#\\"


def rule(kind: str, compare: str, *, value: str, key: str | None = None, invert: bool = False) -> m.L7Rule:
    return m.L7Rule(id=str(uuid.uuid4()), type=kind, compare_type=compare, value=value, key=key, invert=invert)


def policy(action: str, *rules: m.L7Rule, position: int = 1, **fields: object) -> m.L7Policy:
    return m.L7Policy(id=str(uuid.uuid4()), action=action, position=position, rules=rules, **fields)  # pyright: ignore[reportArgumentType]


def site(*policies: m.L7Policy) -> tuple[m.LoadBalancer, str]:
    """An HTTP listener whose own pool has the first member; a second pool, whose id is returned, has the second one."""
    first = tree(listener={"protocol": "HTTP", "policies": policies}, pool={"protocol": "HTTP"})
    own = first.pools[0]
    other = replace(own, id=str(uuid.uuid4()), members=own.members[1:])
    return replace(first, pools=(replace(own, members=own.members[:1]), other)), other.id


def with_policies(lb: m.LoadBalancer, *policies: m.L7Policy) -> m.LoadBalancer:
    return replace(lb, listeners=(replace(lb.listeners[0], policies=policies),))


def status(cloud: Cloud, *options: str, path: str = "/") -> str:
    """The status of the answer, and where it sends the client."""
    return cloud.net.curl("-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", *options, path=path).strip()


def test_reject_redirect_and_another_pool_in_octavias_order(cloud: Cloud) -> None:
    lb, other = site()
    everything = rule("PATH", "STARTS_WITH", value="/")
    to_pool = policy("REDIRECT_TO_POOL", everything, position=1, redirect_pool_id=other)
    to_url = policy("REDIRECT_TO_URL", rule("PATH", "STARTS_WITH", value="/go"), position=2, redirect_url=URL)
    to_prefix = policy(
        "REDIRECT_PREFIX",
        rule("PATH", "STARTS_WITH", value="/go"),
        rule("HEADER", "EQUAL_TO", value="1", key="X-Prefix"),
        position=3,
        redirect_prefix="http://prefix.example/%n",
        redirect_http_code=308,
    )
    reject = policy("REJECT", rule("PATH", "EQUAL_TO", value="/gone"), position=4)
    cloud.apply(with_policies(lb, to_pool, to_url, to_prefix, reject))
    assert cloud.net.names(4) == [MEMBERS[1]] * 4
    assert status(cloud, path="/gone") == "403"
    answer = cloud.net.curl("-D", "-", "-o", "/dev/null", path="/go")
    assert "302 Found" in answer.splitlines()[0]
    assert f"location: {URL}" in [line.strip() for line in answer.splitlines()]
    cloud.apply(with_policies(lb, to_pool, replace(to_url, position=5), to_prefix, reject))
    assert status(cloud, "-H", "X-Prefix: 1", path="/go?x=1") == "308 http://prefix.example/%n/go?x=1"
    # what is switched off, and a pool that is, count for nothing
    cloud.apply(with_policies(lb, replace(to_pool, enabled=False), replace(reject, enabled=False)))
    assert set(cloud.net.names(2)) == {MEMBERS[0]}
    off = replace(lb.pools[1], enabled=False)
    cloud.apply(replace(with_policies(lb, to_pool), pools=(lb.pools[0], off)))
    assert set(cloud.net.names(2)) == {MEMBERS[0]}


@pytest.mark.parametrize(
    ("one", "matching", "other"),
    [
        (rule("HOST_NAME", "EQUAL_TO", value="WWW.example.org"), ("-H", "Host: www.EXAMPLE.org"), ("-H", "Host: example.org")),
        (rule("HOST_NAME", "ENDS_WITH", value=".example.org"), ("-H", "Host: a.example.org"), ("-H", "Host: example.org.a")),
        (rule("HOST_NAME", "REGEX", value=r"^[a-z]{2}\.x$"), ("-H", "Host: ab.x"), ("-H", "Host: abc.x")),
        (rule("PATH", "EQUAL_TO", value="/a"), ("/a?q",), ("/A",)),
        (rule("PATH", "CONTAINS", value="b/c"), ("/ab/cd",), ("/bc",)),
        (rule("PATH", "REGEX", value=r"^/\d+ ?$"), ("/12",), ("/1a",)),
        (rule("FILE_TYPE", "EQUAL_TO", value="jpg"), ("/x.jpg?y",), ("/jpg.x",)),
        (rule("FILE_TYPE", "REGEX", value=r"\.(jpg|png)$"), ("/x.png",), ("/x.gif",)),
        (rule("HEADER", "STARTS_WITH", value="ab", key="X-One"), ("-H", "x-one: abc"), ("-H", "X-One: cab")),
        (rule("COOKIE", "EQUAL_TO", value="v", key="c"), ("-b", "c=v"), ("-b", "c=w")),
        (rule("COOKIE", "REGEX", value="^v+$", key="c"), ("-b", "c=vv"), ("-b", "d=vv")),
    ],
)
def test_every_kind_of_rule_and_its_opposite(
    cloud: Cloud, one: m.L7Rule, matching: tuple[str, ...], other: tuple[str, ...]
) -> None:
    def rejected(request: tuple[str, ...]) -> bool:
        found = status(cloud, path=request[0]) if request[0].startswith("/") else status(cloud, *request)
        assert found in ("403", "200")
        return found == "403"

    lb, _ = site(policy("REJECT", one))
    cloud.apply(lb)
    assert (rejected(matching), rejected(other)) == (True, False)
    cloud.apply(with_policies(lb, policy("REJECT", replace(one, invert=True))))
    assert (rejected(matching), rejected(other)) == (False, True)


HOSTILE = (
    "it's",
    'say "x"',
    "a # b",
    "%[src]",
    "$HOME ${PATH}",
    r"back\slash\\",
    r"\n",
    "-i",
    "--",
    "-f /etc/passwd",
    "a b  c",
    "{ always_true }",
    "tab\there",
    "x' if TRUE #",
)


def test_hostile_texts_mean_themselves(cloud: Cloud) -> None:
    """Each text is the value of a rule: it matches itself, and nothing else."""
    lb, other = site()
    cloud.apply(lb)
    for text in HOSTILE:
        cloud.apply(with_policies(lb, policy("REJECT", rule("HEADER", "EQUAL_TO", value=text, key="X-Odd"))))
        assert status(cloud, "-H", f"X-Odd: {text}") == "403", text
        assert status(cloud, "-H", "X-Odd: x") == "200", text
    for key in ("a'b", "a`$HOME%", "!#$&*+-.^_|~"):
        cloud.apply(with_policies(lb, policy("REJECT", rule("HEADER", "EQUAL_TO", value="1", key=key))))
        assert status(cloud, "-H", f"{key}: 1") == "403", key
        assert status(cloud, "-H", "a: 1") == "200", key
    # a line break reaches the configuration from nowhere, and would end no line there
    broken = rule("HEADER", "CONTAINS", value="a\n    use_backend none\n", key="X-Odd")
    cloud.apply(with_policies(lb, policy("REDIRECT_TO_POOL", broken, redirect_pool_id=other)))
    assert set(cloud.net.names(2, "-H", "X-Odd: a")) == {MEMBERS[0]}


def test_rules_see_what_the_client_sent_and_members_what_was_inserted(cloud: Cloud) -> None:
    lb, other = site()
    secure = rule("HEADER", "EQUAL_TO", value="https", key="X-Forwarded-Proto")
    listener = replace(
        lb.listeners[0],
        insert_headers=("X-Forwarded-Proto", "X-Forwarded-For"),
        policies=(policy("REDIRECT_TO_POOL", secure, redirect_pool_id=other),),
    )
    cloud.apply(replace(lb, listeners=(listener,)))
    body = cloud.net.curl("-H", "X-Forwarded-Proto: https").lower()
    assert f"name={MEMBERS[1]}" in body
    assert "x-forwarded-proto: http\n" in body + "\n"
    assert f"x-forwarded-for: {CLIENT}" in body


def test_a_policys_pool_is_checked_and_counted(cloud: Cloud) -> None:
    check = m.Monitor(id="mon2", type="TCP", delay=1, timeout=1, rise=1, fall=1)
    lb, other = site()
    lb = replace(lb, pools=(lb.pools[0], replace(lb.pools[1], monitor=check)))
    lb = with_policies(lb, policy("REDIRECT_TO_POOL", rule("PATH", "EQUAL_TO", value="/b"), redirect_pool_id=other))
    cloud.apply(lb)
    shown = cloud.store.operating
    member = lb.pools[1].members[0]
    until("online", lambda: shown.get(member.id) == "ONLINE")
    cloud.net.stop(member.address)
    until("lost", lambda: shown[member.id] == "ERROR" and shown[other] == "ERROR", within=4)
    assert shown[lb.id] == "DEGRADED"
    assert shown[lb.listeners[0].policies[0].id] == "ONLINE"


SECOND, SIXTH = "10.98.0.10", "fd00:99::10"


def test_listeners_answer_on_every_vip(cloud: Cloud) -> None:
    inside = ["ip", "-n", cloud.net.ns(CLIENT), "address", "add"]
    run([*inside, "10.98.0.100/24", "dev", "eth0"])
    run([*inside, "fd00:99::100/64", "dev", "eth0", "nodad"])
    run(["ip", "-n", cloud.net.ns(CLIENT), "address", "add", "192.0.2.1/32", "dev", "eth0"])
    lb = replace(tree(), additional_vips=(SIXTH, SECOND))
    udp_pool = m.Pool(id=str(uuid.uuid4()), protocol="UDP", members=lb.pools[0].members)
    udp = m.Listener(id=str(uuid.uuid4()), protocol="UDP", port=53, pool_id=udp_pool.id)
    # a client that is in none of the subnets is reached by the gateway of the address that it asked: by the client itself
    cloud.store.addresses[lb.vip_port_id] = (
        netns.LinkAddress(VIP, 24, "10.99.0.1"),
        netns.LinkAddress(SECOND, 24, "10.98.0.100"),
        netns.LinkAddress(SIXTH, 64, "fd00:99::100"),
    )
    cloud.apply(replace(lb, listeners=(*lb.listeners, udp), pools=(*lb.pools, udp_pool)))
    for vip in (VIP, SECOND, SIXTH):
        assert cloud.net.curl(to=vip) != "", vip
    assert {answer.split()[0] for answer in cloud.net.ask(4, to=SECOND)} == set(MEMBERS)
    assert cloud.net.curl("--interface", "192.0.2.1", to=SECOND) != ""
    # allowed_cidrs hold at each of them
    only = replace(lb.listeners[0], allowed_cidrs=("10.98.0.0/24",))
    cloud.apply(replace(lb, listeners=(only,)))
    refused = ("--connect-timeout", "1")
    assert [cloud.net.curl(*refused, to=vip) != "" for vip in (VIP, SECOND, SIXTH)] == [False, True, False]
    # the pair is plugged again into the namespace that is still there, and whose former rules must not stay
    run(["ip", "link", "delete", f"tap{lb.vip_port_id[:11]}"])
    cloud.apply(lb)
    for vip in (VIP, SECOND, SIXTH):
        assert cloud.net.curl(to=vip) != "", vip

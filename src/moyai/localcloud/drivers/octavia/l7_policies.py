"""Pure: a listener's L7 policies → the lines of its HAProxy frontend.

Octavia's order holds: what rejects comes first, then what redirects clients to another address, then what chooses a pool; by
position within each. HAProxy itself looks at them in this order, whatever the order of the lines.

Texts of users are quoted (`haproxy.word`, `haproxy.argument`), patterns stand after ``--``, and a redirect's address has no
expressions: none of them can be anything but a text to compare with or to answer with.
"""

from __future__ import annotations

from moyai.linux import haproxy
from moyai.localcloud.drivers.octavia.balancer_tree import L7Policy, L7Rule, Listener, LoadBalancer, backend_name

_RANK = {"REJECT": 0, "REDIRECT_TO_URL": 1, "REDIRECT_PREFIX": 1, "REDIRECT_TO_POOL": 2}
_MATCH = {"REGEX": "reg", "STARTS_WITH": "beg", "ENDS_WITH": "end", "CONTAINS": "sub", "EQUAL_TO": "str"}
FOUND = 302  # the status of a redirect that names none


def lines(balancer: LoadBalancer, listener: Listener) -> list[str]:
    """The frontend's lines, without indentation. Policies whose pool is switched off are left out, as Octavia does."""
    found: list[str] = []
    for policy in sorted(listener.live_policies, key=lambda one: _RANK[one.action]):
        if action := _action(policy, balancer, listener=listener):
            found += [_rule(one) for one in policy.live_rules]
            found.append(f"{action} if {' '.join(('!' if one.invert else '') + one.id for one in policy.live_rules)}")
    return found


def _action(policy: L7Policy, balancer: LoadBalancer, *, listener: Listener) -> str | None:
    if policy.action == "REJECT":
        return "http-request deny"
    if policy.action == "REDIRECT_TO_POOL":
        pool = balancer.pool(policy.redirect_pool_id)
        return f"use_backend {backend_name(pool.id, listener.id)}" if pool else None
    kind, address = (
        ("location", policy.redirect_url) if policy.action == "REDIRECT_TO_URL" else ("prefix", policy.redirect_prefix)
    )
    code = policy.redirect_http_code or FOUND
    return f"http-request redirect {kind} {haproxy.word(haproxy.plain_format(address or '/'))} code {code}"


def _rule(rule: L7Rule) -> str:
    how = f"-m {_MATCH[rule.compare_type]}"
    if rule.type == "HOST_NAME":
        what = "req.hdr(host) -i"
    elif rule.type == "PATH":
        what = "path"
    elif rule.type == "FILE_TYPE":
        # the last portion of the path
        what = "path"
        how = "-m end" if rule.compare_type == "EQUAL_TO" else how
    else:
        fetch = {"HEADER": "req.hdr", "COOKIE": "req.cook"}[rule.type]
        what = haproxy.word(f"{fetch}({haproxy.argument(rule.key or '')})")
    return f"acl {rule.id} {what} {how} -- {haproxy.word(rule.value)}"

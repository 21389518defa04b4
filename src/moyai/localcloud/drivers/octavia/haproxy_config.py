"""Pure: a load balancer's tree → the text of its HAProxy configuration.

The same tree gives the same text, byte for byte, so a changed text means a changed load balancer. Everything that comes from
a user is an id, a number, a quoted text (`l7_policies`) or was checked by Octavia and by the driver (`validate`): no text can
break out of its place.
"""

from __future__ import annotations

from dataclasses import dataclass

from moyai.linux import haproxy
from moyai.localcloud.drivers.octavia import l7_policies
from moyai.localcloud.drivers.octavia.balancer_tree import Listener, LoadBalancer, Member, Monitor, Pool, backend_name

_BALANCE = {
    "ROUND_ROBIN": "roundrobin",
    "LEAST_CONNECTIONS": "leastconn",
    # a consistent hash: the weights hold, and few clients change their member when another one comes or goes
    "SOURCE_IP": "source\n    hash-type consistent",
    "SOURCE_IP_PORT": "hash src,concat(:,sess.sport)\n    hash-type consistent",
}
_HTTP_LISTENERS = ("HTTP",)
_SEND_PROXY = {"PROXY": " send-proxy", "PROXYV2": " send-proxy-v2"}
_HEADERS = {
    "X-Forwarded-Port": "X-Forwarded-Port %[dst_port]",
    "X-Forwarded-Proto": "X-Forwarded-Proto http",
}
PEERS = "moyai_peers"
UDP_CHECKED_BY_HAPROXY = ("TCP", "HTTP", "HTTPS", "TLS-HELLO", "PING")


@dataclass(frozen=True)
class Config:
    """The text, or None when there is nothing for HAProxy to do; the backends whose servers it checks; PING's program."""

    text: str | None
    checked: frozenset[str]
    ping: str | None = None


def render(balancer: LoadBalancer, files: haproxy.HAProxy, *, ping: str = "") -> Config:
    """The configuration of all that HAProxy does for this load balancer: all but UDP, and UDP members' TCP and HTTP checks.

    ``files`` says where its files are; ``ping`` is the path of the program for PING checks.
    """
    sections: list[str] = []
    checked: set[str] = set()
    sticky = False
    for listener in balancer.live_listeners:
        udp = listener.protocol == "UDP"
        if not udp:
            sections.append(_frontend(balancer, listener))
        for pool in balancer.pools_of(listener):
            if udp and not (pool.live_monitor and pool.live_monitor.type in UDP_CHECKED_BY_HAPROXY):
                continue
            sections.append(_backend(balancer, pool, listener=listener, ping=ping))
            if pool.live_monitor:
                checked.add(backend_name(pool.id, listener.id))
            sticky = sticky or (pool.persistence is not None and pool.persistence.type in ("SOURCE_IP", "APP_COOKIE"))
    if not sections:
        return Config(None, frozenset())
    pings = any("external-check command" in one for one in sections)
    head = files.header(checks_by_program=pings) + (
        "defaults\n"
        "    load-server-state-from-file global\n"
        "    log global\n"
        "    option log-health-checks\n"
        "    option redispatch\n"
        "    option splice-auto\n"
        "    retries 3\n"
        "    timeout connect 5s\n"
        "    timeout client 50s\n"
        "    timeout server 50s\n"
    )
    if sticky:
        head += f"peers {PEERS}\n    peer {haproxy.PEER} 127.0.0.1:1025\n"
    # HAProxy demands at least one port: this one is for a load balancer that has only checks
    head += f"frontend none\n    mode tcp\n    bind unix@{files.idle_path} mode 600\n    tcp-request connection reject\n"
    return Config(head + "".join(sections), frozenset(checked), _ping_program(balancer) if pings else None)


def _ping_program(balancer: LoadBalancer) -> str:
    """The script that HAProxy runs for each PING check. HAProxy passes only the member's address; the script has the rest."""
    others = [
        f"{member.id}) to={member.monitor_address} ;;"
        for pool in balancer.pools
        for member in pool.live_members
        if member.monitor_address
    ]
    # HAProxy has closed the standard files
    ping = 'exec ping -q -n -c 1 "$to" </dev/null >/dev/null 2>&1'
    lines = ["#!/bin/sh", 'to="$3"', 'case "$HAPROXY_SERVER_NAME" in', *sorted(others), "esac", ping]
    return "\n".join(lines) + "\n"


def _frontend(balancer: LoadBalancer, listener: Listener) -> str:
    http = listener.protocol in _HTTP_LISTENERS
    lines = [
        f"frontend {listener.id}",
        f"    mode {'http' if http else 'tcp'}",
        *(f"    bind {_literal(vip)}:{listener.port}" for vip in balancer.vips),
        f"    timeout client {listener.timeout_client_data}ms",
    ]
    if listener.connection_limit is not None:
        lines.append(f"    maxconn {listener.connection_limit}")
    lines.append("    tcp-request connection set-var(sess.sport) src_port")
    if listener.timeout_tcp_inspect:
        lines.append(f"    tcp-request inspect-delay {listener.timeout_tcp_inspect}ms")
    if http:
        lines += [f"    {line}" for line in l7_policies.lines(balancer, listener)]
    if pool := balancer.pool(listener.pool_id):
        lines.append(f"    default_backend {backend_name(pool.id, listener.id)}")
    return "\n".join(lines) + "\n"


def _literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _backend(balancer: LoadBalancer, pool: Pool, *, listener: Listener, ping: str) -> str:
    http = listener.protocol in _HTTP_LISTENERS  # the pool's protocol may be HTTP under a TCP listener: the listener decides
    lines = [
        f"backend {backend_name(pool.id, listener.id)}",
        f"    mode {'http' if http else 'tcp'}",
        f"    balance {_balance(pool)}",
        f"    timeout connect {listener.timeout_member_connect}ms",
        f"    timeout server {listener.timeout_member_data}ms",
        "    option allbackups",
    ]
    if http:
        # here and not in the frontend: a policy's rules see what the client sent
        if "X-Forwarded-For" in listener.insert_headers:
            lines.append("    option forwardfor")
        lines += [f"    http-request set-header {_HEADERS[name]}" for name in listener.insert_headers if name in _HEADERS]
    # a table of IPv6 addresses takes clients of both families
    lines += _persistence(pool, http=http, address_type="ipv6" if any(":" in vip for vip in balancer.vips) else "ip")
    check = ""
    if monitor := pool.live_monitor:
        check_lines, check = _monitor(monitor, ping)
        lines += check_lines
    for member in pool.live_members:
        lines.append(_server(pool, member, check=check))
    return "\n".join(lines) + "\n"


def _balance(pool: Pool) -> str:
    # a table of clients is handed over at a reload, but not at once, and dies with a killed process; where the choice itself
    # follows from the client's address, it stays the same all the same
    if pool.algorithm == "ROUND_ROBIN" and pool.persistence is not None and pool.persistence.type == "SOURCE_IP":
        return _BALANCE["SOURCE_IP"]
    return _BALANCE[pool.algorithm]


def _persistence(pool: Pool, *, http: bool, address_type: str) -> list[str]:
    how = pool.persistence
    if how is None or (how.type != "SOURCE_IP" and not http):
        return []
    if how.type == "SOURCE_IP":
        return [f"    stick-table type {address_type} size 10k expire 30m peers {PEERS}", "    stick on src"]
    if how.type == "HTTP_COOKIE":
        return ["    cookie SRV insert indirect nocache"]
    return [
        f"    stick-table type string len 64 size 10k expire 30m peers {PEERS}",
        f"    stick store-response res.cook('{how.cookie_name}')",
        f"    stick match req.cook('{how.cookie_name}')",
    ]


def _monitor(monitor: Monitor, ping: str) -> tuple[list[str], str]:
    """The backend's lines and the servers' words of a monitor."""
    lines = [f"    timeout check {monitor.timeout}s"]
    words = f" check inter {monitor.delay}s fall {monitor.fall} rise {monitor.rise}"
    if monitor.type in ("HTTP", "HTTPS"):
        send = f"    http-check send meth {monitor.http_method} uri '{monitor.url_path}'"
        if monitor.http_version:
            send += f" ver HTTP/{monitor.http_version}"
        if monitor.domain_name:
            send += f" hdr Host '{monitor.domain_name}'"
        codes = monitor.expected_codes.replace(" ", "")
        lines += ["    option httpchk", send, f"    http-check expect status {codes}"]
        if monitor.type == "HTTPS":
            words += " check-ssl verify none"
    elif monitor.type == "TLS-HELLO":
        lines.append("    option ssl-hello-chk")
    elif monitor.type == "PING":
        lines += [
            "    option external-check",
            "    external-check path /usr/bin:/bin:/usr/sbin:/sbin",
            f"    external-check command {ping}",
        ]
    return lines, words


def _server(pool: Pool, member: Member, *, check: str) -> str:
    line = f"    server {member.id} {_literal(member.address)}:{member.port} weight {member.weight}{check}"
    if check and member.monitor_address:
        line += f" addr {member.monitor_address}"
    if check and member.monitor_port:
        line += f" port {member.monitor_port}"
    if member.backup:
        line += " backup"
    if pool.persistence is not None and pool.persistence.type == "HTTP_COOKIE":
        line += f" cookie {member.id}"
    return line + _SEND_PROXY.get(pool.protocol, "")

"""Where a connection to a cluster's API is lost: asked of the cloud's own namespaces, once a test could not connect."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import suppress

from moyai.linux.process import ProcessError, run
from tests.cloud.server_site import Site


def where_lost(cloud: str, address: str, *, port: int = 6443) -> str:
    """What each place between this host and the API says about the floating ``address`` now, in one line."""
    with suppress(OSError, ProcessError):
        return "; ".join(_places(Site(cloud, None, None).inside, address, port=port))
    return "the cloud's namespaces cannot be asked"


def _places(inside: list[str], address: str, *, port: int) -> Iterator[str]:
    def ask(*words: str) -> str:
        return run([*inside, *words], timeout=20, check=False).stdout.strip()

    yield f"the host connects: {_connects(address, port)}"
    yield f"the cloud knows its neighbour: {ask('ip', 'neigh', 'show', 'to', address) or 'no'}"
    routers = [line.split()[0] for line in ask("ip", "netns", "list").splitlines() if line.startswith("qrouter-")]
    owners = [one for one in routers if f" {address}/32 " in f"{ask('ip', '-n', one, '-o', 'addr')} "]
    yield f"routers with the address: {len(owners)} of {len(routers)}"
    for owner in owners:
        rules = ask("ip", "netns", "exec", owner, "iptables-save", "-t", "nat")
        found = re.search(rf"-d {re.escape(address)}/32 .*--to-destination (\S+)", rules)
        if found is None:
            yield "no rule translates it"
            continue
        machine = found[1]
        yield f"the router knows the machine: {ask('ip', '-n', owner, 'neigh', 'show', 'to', machine) or 'no'}"
        probe = f"exec 3<>/dev/tcp/{machine}/{port} && echo yes"
        yield f"the router connects: {ask('ip', 'netns', 'exec', owner, 'timeout', '2', 'bash', '-c', probe) or 'no'}"
        allowed = ask("iptables-save", "-t", "filter").count(f"--dport {port} -j RETURN")
        yield f"machines whose security groups let it in: {allowed}"


def _connects(address: str, port: int) -> str:
    try:
        socket.create_connection((address, port), 2).close()
    except OSError as error:
        return f"no ({error})"
    return "yes"

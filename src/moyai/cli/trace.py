"""``moyai trace``: the hops of a packet between two places, by what the nodes' kernels and the cloud have."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from moyai.cli.display import reporter as display
from moyai.cli.terminal import OUTPUT, say

if TYPE_CHECKING:
    from moyai.diagnose.network.command_trace import TraceReport
    from moyai.diagnose.network.live import LiveTrace
    from moyai.diagnose.network.trace_model import Trace


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.argument("cluster", required=False, metavar="[CLUSTER|SPEC]")
@click.option("--port", "-p", default="", help="PORT, PORT/tcp, PORT/udp, PORT/sctp or icmp.  [default: what TO listens on]")
@click.option("--namespace", "-n", default="default", show_default=True, help="Of names without a namespace.")
@click.option("--live", is_flag=True, help="Send marked packets, too, and report where each node sees them.")
@OUTPUT
def trace(source: str, target: str, *, cluster: str | None, port: str, namespace: str, live: bool, output: str) -> None:
    """Say which way a packet takes FROM a pod or node TO a pod, node, Service or address, and where it ends.

    FROM and TO: NAME, NAMESPACE/NAME, pod/NAME, svc/NAME, node/NAME or an IPv4 address. Without --live it sends nothing: it
    reads the kernels of the nodes. Exit code 1 when the packet or its answer does not arrive.
    """
    from moyai.cli.cluster import connect, recorded
    from moyai.diagnose.network.command_trace import trace as read
    from moyai.diagnose.network.places import parse_port

    wanted = parse_port(port) if port else None
    record = recorded(cluster)
    with display("json" if output == "json" else "text", title=f"trace {source} {target}") as progress:
        found = read(
            record, connect(record.cloud), ends=(source, target), namespace=namespace, port=wanted, live=live, reporter=progress
        )
    if output == "json":
        say(json.dumps(found.data(), indent=1))
    else:
        _print(found)
    if not found.trace.arrives:
        sys.exit(1)


def _print(found: TraceReport) -> None:
    port = f", port {found.packet.port}/{found.packet.protocol}" if found.packet.port else f", {found.packet.protocol}"
    say(f"{found.source.text} → {found.target.text}{port}")
    _print_hops(found.trace)
    if found.trace.back:
        say("the answer:")
        _print_hops(found.trace.back)
    if found.live:
        _print_live(found.live)
    for text in found.trace.notes:
        say(f"note: {text}")
    say(_conclusion(found.trace))
    failed = found.trace.back if found.trace.outcome == "delivered" and found.trace.back else found.trace
    if failed.hint:
        say(f"  what helps: {failed.hint}")


def _print_hops(trace: Trace) -> None:
    where = ""
    for hop in trace.hops:
        if hop.where != where:
            where = hop.where
            say(f"  {where}")
        say(f"    {'✗' if hop.kind == 'dropped' else '·'} {hop.text}")


def _print_live(live: LiveTrace) -> None:
    say(f"one of {live.sent} packets that were sent:")
    where = ""
    for one in live.sightings:
        if one.node != where:
            where = one.node
            say(f"  {where}")
        say(f"  {one.text}")
    last, back = live.last, live.last_answer
    if live.answer:
        say(f"the answer: {live.answer}")
    elif back is not None:
        say(f"an answer ({back.says}) was last seen on {back.node}, {back.link} {back.direction}")
    elif last is None:
        say("no node has seen a packet")
    else:
        say(f"no answer was seen; the packet was last seen on {last.node}, {last.link} {last.direction}")


def _conclusion(trace: Trace) -> str:
    size = f"; packets of {trace.mtu} bytes fit through" if trace.mtu else ""
    if trace.outcome == "delivered" and trace.back and not trace.back.arrives:
        return f"the packet arrives, its answer does not: {trace.back.why}"
    match trace.outcome:
        case "delivered":
            return f"the packet arrives, and so does its answer{size}"
        case "left":
            return f"the packet leaves the cluster; what becomes of it outside is not known{size}"
        case "unknown":
            return f"the way is not known to its end: {trace.why}"
        case "dropped":
            return f"the packet is dropped: {trace.why}"

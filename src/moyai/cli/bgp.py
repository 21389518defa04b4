"""``moyai bgp``: sessions and routes of the nodes' BGP."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from moyai.cli.display import reporter as display
from moyai.cli.tables import print_table
from moyai.cli.terminal import CLUSTER, OUTPUT, say

if TYPE_CHECKING:
    from moyai.diagnose.network.command_bgp import BgpReport

_ON = click.option("--on", "node", default="", metavar="NODE", help="Only of this node, or of this router of the spec.")


@click.group()
def bgp() -> None:
    """Sessions and routes of the nodes' BGP."""


@bgp.command()
@CLUSTER
@_ON
@OUTPUT
def sessions(*, cluster: str | None, node: str, output: str) -> None:
    """List each node's sessions with other nodes and with routers.

    Exit code 1 when a session is not up, or when a node could not be asked.
    """
    found = _read(cluster, node=node, output=output)
    if output == "json":
        say(json.dumps(found.data(), indent=1))
    else:
        rows = [
            (
                name,
                one.about or "-",
                one.address,
                str(one.asn),
                one.state,
                f"{one.seconds} s",
                one.bfd or "-",
                str(one.received),
            )
            for name, seen in found.nodes.items()
            for one in seen.sessions
        ]
        print_table(("NODE", "WITH", "ADDRESS", "AS", "STATE", "FOR", "BFD", "RECEIVED"), rows, right=("RECEIVED",))
        _print_unread(found)
    if found.down or found.unread:
        sys.exit(1)


@bgp.command()
@CLUSTER
@_ON
@OUTPUT
def routes(*, cluster: str | None, node: str, output: str) -> None:
    """List the prefixes that each node knows, its own ones too, their next hops, and the routes in its kernel.

    Exit code 1 when a node could not be asked.
    """
    found = _read(cluster, node=node, output=output)
    if output == "json":
        say(json.dumps(found.data(), indent=1))
    else:
        rows = [
            (name, one.prefix, one.gateway or "itself", "yes" if one.used else "no", one.asns or "-")
            for name, seen in found.nodes.items()
            for one in seen.paths
        ]
        print_table(("NODE", "PREFIX", "NEXT HOP", "USED", "AS PATH"), rows)
        kernel = [(name, one.prefix, ", ".join(one.gateways)) for name, seen in found.nodes.items() for one in seen.kernel]
        if kernel:
            say()
            print_table(("NODE", "ROUTE IN ITS KERNEL", "NEXT HOPS"), kernel)
        _print_unread(found)
    if found.unread:
        sys.exit(1)


def _read(cluster: str | None, *, node: str, output: str) -> BgpReport:
    from moyai.cli.cluster import recorded
    from moyai.diagnose.network.command_bgp import read_bgp_of

    record = recorded(cluster)
    with display("json" if output == "json" else "text", title=f"BGP of {record.name}") as progress:
        return read_bgp_of(record, reporter=progress, node=node)


def _print_unread(found: BgpReport) -> None:
    for node, why in found.unread.items():
        say(f"! {node} could not be asked: {why}")

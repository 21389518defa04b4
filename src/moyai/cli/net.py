"""``moyai net``: how the network of a living cluster stands, and whether its ways work.

Thin: reads arguments, calls ``diagnose.network``, prints. Exit code 1: something does not work.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from moyai.cli.display import reporter as display
from moyai.cli.tables import print_table
from moyai.cli.terminal import CLUSTER, OUTPUT, say, say_lines

if TYPE_CHECKING:
    from moyai.diagnose.network.check import CheckReport
    from moyai.diagnose.network.state import NetworkState, NodeState


@click.group()
def net() -> None:
    """How the network of a cluster stands, and whether its ways work."""


@net.command()
@CLUSTER
@OUTPUT
def status(cluster: str | None, output: str) -> None:
    """The mode of the pod network and its reason, what each node has for it, and how many more nodes fit.

    Where nodes announce Services, also which node answers for which address. Exit code 1 when something is missing.
    """
    from moyai.cli.cluster import connect, recorded
    from moyai.diagnose.network.command_status import status as read

    record = recorded(cluster)
    with display("json" if output == "json" else "text", title=f"network of {record.name}") as progress:
        found = read(record, connect(record.cloud), reporter=progress)
    if output == "json":
        say(json.dumps(found.data(), indent=1))
    else:
        _print_status(found)
    if found.problems:
        sys.exit(1)


@net.command()
@CLUSTER
@OUTPUT
def check(cluster: str | None, output: str) -> None:
    """Try all ways between all pairs of nodes: pod to pod, Service, DNS, and packets of full size.

    It runs pods in a namespace of its own for some seconds. Exit code 1 when a way fails.
    """
    from moyai.cli.cluster import connect, recorded
    from moyai.diagnose.network.command_check import check as run

    record = recorded(cluster)
    with display("json" if output == "json" else "text", title=f"check the network of {record.name}") as progress:
        found = run(record, connect(record.cloud), reporter=progress)
    if output == "json":
        say(json.dumps(found.data(), indent=1))
    else:
        _print_check(found)
    if found.failures:
        sys.exit(1)


@net.command()
@CLUSTER
@click.option("--to", "mode", required=True, help="The mode that the pod network is to have: routes, host-gw or vxlan.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@OUTPUT
def migrate(cluster: str | None, mode: str, *, dry_run: bool, output: str) -> None:
    """Bring a cluster that runs to another mode of its pod network, node by node.

    Connections between pods that do not move stay. Run again after an interruption, it goes on.
    """
    from moyai.cli.cluster import connect, recorded
    from moyai.core.paths import default_paths
    from moyai.lifecycle.mode_change import migrate as move
    from moyai.lifecycle.mode_change import preview_migration
    from moyai.plan import text

    record, paths = recorded(cluster), default_paths()
    cloud = connect(record.cloud)
    if dry_run:
        legs = preview_migration(record.name, cloud, to=mode, paths=paths)
        if output == "json":
            say(json.dumps([{"mode": name, **text.data(plan)} for name, plan in legs], indent=1))
            return
        for name, plan in legs:
            say_lines([f"to mode {name}:", *text.lines(plan)])
        if not legs:
            say("nothing to do")
        return
    with display("json" if output == "json" else "text", title=f"{record.name} to mode {mode}") as progress:
        done = move(record.name, cloud, to=mode, paths=paths, reporter=progress)
    if output == "json":
        say(json.dumps(asdict(done), indent=1))
    elif done.way:
        say(f"cluster {done.name} has mode {done.mode} now, by way of {' and '.join(done.way)}: write it into the spec")
    else:
        say(f"cluster {done.name} has mode {done.mode}: nothing to do")


def _print_status(found: NetworkState) -> None:
    say(f"cluster {found.cluster}: pods {found.pod_range}, mode {found.mode}")
    if found.why:
        say(f"  {found.why}")
    say(f"network policies: {'enforced by the agent of each node' if found.policy else 'not enforced by moyai'}")
    say()
    rows = [(one.name, one.pod_cidr or "-", one.address or "-", _link(one), _tunnel(one), _reached(one)) for one in found.nodes]
    print_table(("NODE", "POD RANGE", "ADDRESS", "LINK (MTU)", "TUNNEL (MTU)", "REACHES"), rows)
    say()
    limits = [(one.name, str(one.used), str(one.limit), str(one.left)) for one in found.budget.limits]
    print_table(("LIMIT", "USED", "OF", "LEFT"), limits, right=("USED", "OF", "LEFT"))
    say(f"{found.budget.nodes_left} more nodes fit into the pod network")
    if found.announced:
        say()
        announced = [(one.service, one.address, one.pool, one.node or "-") for one in found.announced]
        print_table(("SERVICE", "ADDRESS", "POOL", "NODE"), announced)
    for text in found.warnings:
        say(f"note: {text}")
    for text in found.problems:
        say(f"! {text}")


def _link(node: NodeState) -> str:
    return f"{node.uplink} ({node.uplink_mtu})" if node.uplink else "-"


def _tunnel(node: NodeState) -> str:
    return f"{node.tunnel} ({node.tunnel_mtu})" if node.tunnel else "-"


def _reached(node: NodeState) -> str:
    return "-" if node.reached is None else f"{node.reached}/{node.others}"


def _counted(failures: int) -> str:
    return f"{failures} failure{'s' if failures > 1 else ''}" if failures else "all ways work"


def _print_check(found: CheckReport) -> None:
    from moyai.diagnose.network.check import TRIES

    sizes = sorted(set(found.mtu.values()))
    for kind, name in TRIES.items():
        tried = found.tried.get(kind, 0)
        carried = sorted({size for paths in found.paths.values() for size in paths.values()})
        shown = {"sizes": sizes, "paths": carried}.get(kind)
        words = f" of {' and '.join(map(str, shown))} bytes" if shown else ""
        say(f"{name}{words}: {found.working[kind]} of {tried} work")
    for one in found.failures:
        say(f"! {one.text}")
    say(f"{len(found.nodes)} nodes in {found.seconds:.1f} s: {_counted(len(found.failures))}")

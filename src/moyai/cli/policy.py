"""``moyai policy``: what network policies do, and what those on trial would do."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from moyai.cli.display import reporter as display
from moyai.cli.tables import print_table
from moyai.cli.terminal import CLUSTER, OUTPUT, say

if TYPE_CHECKING:
    from moyai.diagnose.network.command_audit import AuditReport


@click.group()
def policy() -> None:
    """What network policies on trial would drop."""


@policy.command()
@CLUSTER
@OUTPUT
def audit(cluster: str | None, output: str) -> None:
    """List what policies on trial would have dropped within the last hour.

    A policy with the annotation policy.moyai.dev/trial: "true" is on trial: it drops nothing. Exit code 1 when it would
    have dropped something, or when a node could not be asked.
    """
    from moyai.cli.cluster import recorded
    from moyai.diagnose.network.command_audit import audit as read

    record = recorded(cluster)
    with display("json" if output == "json" else "text", title=f"policies on trial of {record.name}") as progress:
        found = read(record, reporter=progress)
    if output == "json":
        say(json.dumps(found.data(), indent=1))
    else:
        _print(found)
    if found.entries or found.unread:
        sys.exit(1)


def _print(found: AuditReport) -> None:
    if not found.trials:
        say(f"cluster {found.cluster} has no policy on trial")
    else:
        say(f"on trial: {', '.join(found.trials)}")
    if found.entries:
        say()
        rows = [
            (
                ", ".join(one.policies),
                one.direction,
                one.source,
                f"{one.destination} {one.port}/{one.protocol}",
                f"{one.seconds} s ago",
                one.node,
            )
            for one in found.entries
        ]
        print_table(("POLICY", "DIRECTION", "FROM", "TO", "LAST", "NODE"), rows)
    elif found.trials:
        say("nothing of the last hour would have been dropped")
    for node, why in found.unread.items():
        say(f"! {node} could not be asked: {why}")

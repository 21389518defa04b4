"""``moyai etcd``: the state of etcd's members, and the defragmentation of their databases.

Thin: reads arguments, calls ``lifecycle.etcd_care``, prints.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from moyai.cli.display import reporter as display
from moyai.cli.tables import print_table
from moyai.cli.terminal import CLUSTER, OUTPUT, say

if TYPE_CHECKING:
    from moyai.lifecycle.etcd_care import EtcdStatus


@click.group()
def etcd() -> None:
    """The state of etcd's members, and how to free unused space of their databases."""


@etcd.command()
@CLUSTER
@OUTPUT
def status(cluster: str | None, output: str) -> None:
    """The size of each member's database, its quota, and how quickly its disk syncs. Exit code 1 when a member needs help."""
    from moyai.cli.cluster import recorded
    from moyai.lifecycle.clusters import require_api
    from moyai.lifecycle.etcd_care import all_problems, read_etcd, ready_planes

    api = require_api(recorded(cluster))
    found = read_etcd(api, ready_planes(api))
    _show(found, output)
    if not found or any(all_problems(found)):
        sys.exit(1)


@etcd.command()
@CLUSTER
@OUTPUT
def defragment(cluster: str | None, output: str) -> None:
    """Free the unused space of etcd's databases on disk, one member after the other.

    The leader comes last, and another member leads before. With one control plane the API does not answer for some seconds.
    """
    from moyai.cli.cluster import recorded
    from moyai.core.clock import SystemClock
    from moyai.core.paths import default_paths
    from moyai.lifecycle.clusters import require_api
    from moyai.lifecycle.etcd_care import defragment as run
    from moyai.lifecycle.etcd_care import ready_planes
    from moyai.lifecycle.work import working

    record = recorded(cluster)
    with (
        display("json" if output == "json" else "text", title=f"etcd of {record.name}") as progress,
        working(default_paths(), record.name, command="moyai etcd defragment", tell=progress.note),
    ):
        api = require_api(record)
        found = run(api, ready_planes(api), clock=SystemClock(), reporter=progress)
    _show(found, output)


def _show(found: Sequence[EtcdStatus], output: str) -> None:
    from moyai.lifecycle.etcd_care import all_notes, all_problems

    problems, notes = tuple(all_problems(found)), tuple(all_notes(found))
    if output == "json":
        say(json.dumps({"members": [asdict(one) for one in found], "problems": problems, "notes": notes}, indent=1))
        return
    rows = [
        (
            one.name,
            "yes" if one.leader else "-",
            one.version,
            f"{one.size / (1 << 20):.1f}",
            f"{one.in_use / (1 << 20):.1f}",
            f"{one.quota >> 20}",
            "?" if one.sync_p99 is None else f"{1000 * one.sync_p99:.0f} ms",
        )
        for one in found
    ]
    print_table(("MEMBER", "LEADS", "VERSION", "MiB", "IN USE", "QUOTA", "99% OF SYNCS IN"), rows)
    for note in notes:
        say(f"note: {note}")
    for problem in problems:
        say(f"! {problem}")
    if not found:
        say("! no etcd could be asked")

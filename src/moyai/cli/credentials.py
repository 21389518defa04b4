"""``moyai credentials``: what a cluster logs in to its cloud with, and how it is replaced.

Thin: reads arguments, calls ``lifecycle.rotate`` and ``lifecycle.status``, prints.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click

from moyai.cli.terminal import CLUSTER, OUTPUT, say


@click.group()
def credentials() -> None:
    """What a cluster logs in to its cloud with, and how it is replaced."""


@credentials.command(name="list")
@CLUSTER
@OUTPUT
def list_credentials(cluster: str | None, output: str) -> None:
    """The credentials of the cloud with which the parts inside CLUSTER log in. Exit code 1 when one ends soon."""
    from moyai.cli.cluster import connect, recorded
    from moyai.cli.status_tables import print_credentials
    from moyai.core.clock import SystemClock
    from moyai.lifecycle.status import read_credentials

    record = recorded(cluster)
    found, problems = read_credentials(record, connect(record.cloud), now=SystemClock().now())
    if output == "json":
        say(json.dumps({"credentials": [asdict(one) for one in found], "problems": problems}, indent=1))
    else:
        print_credentials(found)
        for problem in problems:
            say(f"! {problem}")
    if problems:
        sys.exit(1)


@credentials.command()
@CLUSTER
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@OUTPUT
def rotate(cluster: str | None, dry_run: bool, *, yes: bool, output: str) -> None:
    """Make new credentials for the parts inside CLUSTER, have the parts use them, and delete the old ones.

    Workloads go on. The new ones are those of the user who is logged in now. It goes on where it was interrupted.
    """
    from moyai.cli.certificates import run_rotation
    from moyai.plan.rotation import Rotated

    run_rotation(cluster, Rotated.CREDENTIALS, dry_run=dry_run, yes=yes, output=output)

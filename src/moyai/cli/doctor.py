"""``moyai doctor``: what a cloud can do for a cluster, what it lacks, and which spec fits it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moyai.cli.cluster import SPECS, connect, load_spec
from moyai.cli.tables import print_table
from moyai.cli.terminal import OUTPUT, say

if TYPE_CHECKING:
    from moyai.diagnose.doctor.command_doctor import DoctorReport


@click.command()
@SPECS
@click.option(
    "--cloud",
    metavar="CLOUD",
    default="",
    help="An entry of clouds.yaml, or KIND:SETTINGS.  [default: the spec's, or $OS_CLOUD]",
)
@OUTPUT
def doctor(specs: tuple[Path, ...], *, cloud: str, output: str) -> None:
    """Show what a cloud can do for a cluster, what it lacks, what that costs, and the largest spec that fits. Changes nothing.

    With SPEC (as of `up`): also whether that cluster can be built. Exit code 1 when it cannot, or, without SPEC, when none can.
    """
    from moyai.core.clock import SystemClock
    from moyai.core.paths import default_paths
    from moyai.diagnose.doctor.command_doctor import doctor as examine

    cluster = load_spec(*specs).cluster
    if cloud:
        cluster = cluster.in_cloud(cloud)
    found = examine(
        connect(cluster.spec.cloud),
        image=cluster.spec.image_name,
        paths=default_paths(),
        clock=SystemClock(),
        spec=cluster if specs else None,
    )
    if output == "json":
        say(json.dumps(found.data(), indent=1))
    else:
        _print(found)
    if not found.well:
        sys.exit(1)


def _print(found: DoctorReport) -> None:
    from moyai.core import yamltext

    print_table(("STATE", "SUBJECT", "FOUND"), [(one.state.value, one.subject, one.text) for one in found.findings])
    if told := [one for one in found.findings if one.advice]:
        say()
        for one in told:
            say(f"{'!' if one.state == 'missing' else '-'} {one.subject}: {one.advice}")
    say()
    if found.fit.spec is None:
        say(f"no cluster fits into this cloud: {found.fit.why}")
        return
    say(f"the largest cluster that fits (a larger one: {found.fit.why}):")
    say()
    say(yamltext.dump(found.fit.spec), end="")

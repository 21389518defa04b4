"""``moyai upgrade``: another version of Kubernetes for a cluster that runs.

Thin: reads arguments, makes the node images that a local cloud lacks, calls ``lifecycle.upgrade``, prints.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from moyai.cli.cluster import connect, recorded
from moyai.cli.display import reporter as display
from moyai.cli.terminal import CLUSTER, OUTPUT, say, say_lines
from moyai.core.errors import UsageError
from moyai.core.paths import Paths, default_paths
from moyai.core.progress import Reporter

if TYPE_CHECKING:
    from moyai.lifecycle.record import Record
    from moyai.lifecycle.upgrade import Preview, UpgradeResult


@click.command()
@CLUSTER
@click.option("--to", default="", metavar="VERSION", help="The version, such as 1.37.1; those between are passed through.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--pause", is_flag=True, help="Let the upgrade that runs stop after the machine that it replaces.")
@click.option("--rollback", is_flag=True, help="Take back an upgrade that is not finalized.")
@click.option("--finalize", is_flag=True, help="End the emulation of the old version: then there is no way back.")
@click.option(
    "--soak",
    type=click.FloatRange(min=0),
    metavar="HOURS",
    help="The next `moyai upgrade` after so many hours finalizes; 0: at once.  [default: only --finalize does]",
)
@OUTPUT
def upgrade(
    cluster: str | None,
    to: str,
    *,
    dry_run: bool,
    yes: bool,
    pause: bool,
    rollback: bool,
    finalize: bool,
    soak: float | None,
    output: str,
) -> None:
    """Bring CLUSTER to another version of Kubernetes, machine by machine, or go on with an upgrade that was begun.

    Control planes come first, then the pools. The workloads go on.
    """
    from moyai.lifecycle import upgrade as upgrading
    from moyai.lifecycle import upgrade_state
    from moyai.plan.versions import Wish

    if sum((bool(to), pause, rollback, finalize)) > 1:
        raise UsageError("--to, --pause, --rollback and --finalize: should be one of them")
    for option, given in (("--pause", pause), ("--rollback", rollback), ("--finalize", finalize)):
        if given and soak is not None:
            raise UsageError(f"--soak: should be left out with {option}")
    record = recorded(cluster, newest=True)
    if pause:
        upgrade_state.request_pause(record)
        say(f"cluster {record.name}: the upgrade stops after the machine that it replaces; `moyai upgrade` goes on")
        return
    wish = Wish(to.removeprefix("v"), back=rollback, final=finalize, soak_hours=soak)
    paths = default_paths()
    cloud, makes = connect(record.cloud), _makes(record, paths)
    seen = upgrading.preview(record.name, cloud, wish=wish, paths=paths, makes=makes)
    if dry_run or (seen.upgrade is None and soak is None):
        _show(seen, output)
        return
    if seen.upgrade is not None:
        if output == "text":
            _show(seen, output)
        if not yes and sys.stdin.isatty():
            click.confirm("Go on?", abort=True, err=True)
    _make_images(record, seen.needs if makes else (), paths=paths, output=output)
    with display("json" if output == "json" else "text", title=f"cluster {record.name}") as progress:
        result = upgrading.upgrade(record.name, cloud, wish=wish, paths=paths, reporter=progress, makes=makes)
    _report(result, output)


def _makes(record: Record, paths: Paths) -> tuple[str, ...]:
    """The versions that moyai makes node images of for this cloud."""
    from moyai.cli import prepare
    from moyai.images.node_image import KUBERNETES
    from moyai.toolchain import Toolchain

    return tuple(Toolchain(paths, Reporter()).versions(KUBERNETES)) if prepare.is_local(record.cloud, paths) else ()


def _make_images(record: Record, versions: Sequence[str], *, paths: Paths, output: str) -> None:
    """Those that are there are found; one that an older moyai made is replaced."""
    from moyai.cli import prepare

    for version in versions:
        with display("json" if output == "json" else "text", title=f"node image of {version}") as progress:
            prepare.ensure_cluster_base(record.cloud, paths, reporter=progress, version=version)


def _show(seen: Preview, output: str) -> None:
    from moyai.plan import text

    if output == "json":
        links = [asdict(seen.upgrade)] if seen.upgrade else []
        say(json.dumps({"upgrade": links, "versions": seen.links, **text.data(seen.plan)}, indent=1))
        return
    if seen.upgrade is None:
        say(f"cluster {seen.name}: nothing to do; `moyai status` shows where an upgrade stands")
        return
    say(f"cluster {seen.name}: Kubernetes {' → '.join((seen.begin, *seen.links))}")
    say_lines(text.lines(seen.plan))


def _report(result: UpgradeResult, output: str) -> None:
    if output == "json":
        say(json.dumps(asdict(result), indent=1))
        return
    if result.paused:
        from moyai.plan.versions import Stage

        forward = result.upgrade is not None and result.upgrade.stage is Stage.FORWARD
        back = ", `moyai upgrade --rollback` takes it back" if forward else ""
        say(f"cluster {result.name}: the upgrade is paused; `moyai upgrade` goes on{back}")
        return
    say(f"cluster {result.name} has Kubernetes {result.version}")
    if result.upgrade is not None:
        say("  try         moyai upgrade --finalize, once all is well; until then moyai upgrade --rollback takes it back")

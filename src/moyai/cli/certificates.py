"""``moyai certificates``: when certificates end, and how they and the keys behind them are replaced.

Thin: reads arguments, calls ``lifecycle.rotate`` and ``lifecycle.status``, prints.
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
from moyai.core.paths import default_paths

if TYPE_CHECKING:
    from moyai.plan.rotation import Rotated

_DRY_RUN = click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
_YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


@click.group()
def certificates() -> None:
    """When certificates end, and how they and the keys behind them are replaced.

    Workloads go on meanwhile. Each command goes on where it was interrupted.
    """


@certificates.command(name="list")
@CLUSTER
@OUTPUT
def list_certificates(cluster: str | None, output: str) -> None:
    """When each certificate of CLUSTER ends, and who renews it. Exit code 1 when one ends soon."""
    from moyai.cli.cluster import recorded
    from moyai.core.clock import SystemClock
    from moyai.lifecycle.status import read_certificates

    found = read_certificates(recorded(cluster), now=SystemClock().now())
    if output == "json":
        say(json.dumps(asdict(found), indent=1))
    else:
        rows = [(one.name, one.ends[:10], str(one.days_left), one.renewed_by) for one in found.certificates]
        print_table(("CERTIFICATE", "ENDS", "DAYS LEFT", "RENEWED BY"), rows)
        if found.rotation:
            say(f"note: {found.rotation.text}")
        for problem in found.problems:
            say(f"! {problem}")
    if found.problems:
        sys.exit(1)


@certificates.command()
@CLUSTER
@_DRY_RUN
@_YES
@OUTPUT
def renew(cluster: str | None, dry_run: bool, *, yes: bool, output: str) -> None:
    """Sign all certificates of the control planes again, and the kubeconfig's, whatever their ends are.

    One control plane after the other. With one, the API does not answer for up to a minute.
    """
    from moyai.plan.rotation import Rotated

    run_rotation(cluster, Rotated.CERTIFICATES, dry_run=dry_run, yes=yes, output=output)


@certificates.command()
@CLUSTER
@_DRY_RUN
@_YES
@OUTPUT
def rotate_ca(cluster: str | None, dry_run: bool, *, yes: bool, output: str) -> None:
    """Replace the cluster's authorities, and sign all certificates with the new ones.

    Copies of the old kubeconfig stop working at the end.
    """
    from moyai.plan.rotation import Rotated

    run_rotation(cluster, Rotated.AUTHORITIES, dry_run=dry_run, yes=yes, output=output)


@certificates.command()
@CLUSTER
@_DRY_RUN
@_YES
@OUTPUT
def rotate_account_key(cluster: str | None, dry_run: bool, *, yes: bool, output: str) -> None:
    """Replace the key that signs the tokens of service accounts.

    Tokens that the old key has signed count for 75 minutes more. Call the command again afterwards: it drops the old key.
    """
    from moyai.plan.rotation import Rotated

    run_rotation(cluster, Rotated.ACCOUNT_KEY, dry_run=dry_run, yes=yes, output=output)


@certificates.command()
@CLUSTER
@_DRY_RUN
@_YES
@OUTPUT
def rotate_encryption_key(cluster: str | None, dry_run: bool, *, yes: bool, output: str) -> None:
    """Replace the key that Secrets are stored with, and store all Secrets again."""
    from moyai.plan.rotation import Rotated

    run_rotation(cluster, Rotated.ENCRYPTION_KEY, dry_run=dry_run, yes=yes, output=output)


def run_rotation(cluster: str | None, what: Rotated, *, dry_run: bool, yes: bool, output: str) -> None:
    """Show the plan, ask, and carry it out."""
    from moyai.cli.cluster import connect, recorded
    from moyai.lifecycle import rotate as rotating
    from moyai.plan import text

    record, paths = recorded(cluster), default_paths()
    cloud = connect(record.cloud)
    if dry_run or (output == "text" and not yes):
        stages = rotating.preview(record.name, cloud, what=what, paths=paths)
        if output == "json":
            found = [{"stage": str(one.rotation.stage), **text.data(one.plan)} for one in stages]
            say(json.dumps({"what": str(what), "stages": found}, indent=1))
        for one in stages if output == "text" else ():
            say(f"{what}: {one.rotation.stage}")
            say_lines(text.lines(one.plan))
        if dry_run:
            return
        if sys.stdin.isatty():
            click.confirm("Go on?", abort=True, err=True)
    with display("json" if output == "json" else "text", title=f"{what} of {record.name}") as progress:
        result = rotating.rotate(record.name, cloud, what=what, paths=paths, reporter=progress)
    if output == "json":
        say(json.dumps(asdict(result), indent=1))
    elif result.waits_until:
        say(f"cluster {record.name}: the new {what} signs; from {result.waits_until} on the same command drops the old one")
    else:
        say(f"cluster {record.name} has new {what}" if str(what).endswith("s") else f"cluster {record.name} has a new {what}")
        if _HINTS.get(str(what)):
            say(_HINTS[str(what)])


_HINTS = {
    "authorities": "  try         moyai kubeconfig --write: copies of the old kubeconfig do not work any more",
}

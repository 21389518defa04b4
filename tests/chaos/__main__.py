"""``python -m tests.chaos [--only NAME]… [--output json]``: the scenarios, on a local cloud of their own. Needs root.

``MOYAI_TEST_CLOUD`` names a running local cloud to use instead. Exit code 1 when a case did not end as it should. Progress goes
to standard error, the results to standard output.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from moyai import __version__
from moyai.localcloud.layout import LocalCloudConfig
from tests.chaos import kills, leaders, outage, together
from tests.chaos.results import Results
from tests.chaos.site import standing
from tests.conditions import conditions
from tests.conftest import running_cloud

CONFIG = LocalCloudConfig(name="chaos", management_cidr="10.226.0.0/24", external_cidr="10.226.1.0/24")
SCENARIOS = (kills.NAME, together.NAME, leaders.NAME, outage.NAME)


def _say(text: str) -> None:
    click.echo(f"{datetime.now(UTC):%H:%M:%S} {text}", err=True)


def _show(results: Results, output: str, *, began: float, load: tuple[float, float, float]) -> None:
    about = {**conditions(began=began, load=load), "faults": len(results.faults)}
    if output == "json":
        click.echo(json.dumps({**about, "results": [one.data() for one in results.found]}, indent=1))
    else:
        click.echo(
            f"moyai {__version__}, {about['processors']} processors, {about['seconds']} s, {len(results.faults)} faults\n"
        )
        click.echo("\n".join(one.line() for one in results.found))


@click.command()
@click.option(
    "--only", multiple=True, type=click.Choice(SCENARIOS), help="Run only this scenario (may be given several times)."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the moments at which `up` is killed.")
@click.option("--kills", "count", type=click.IntRange(1, 200), default=20, show_default=True, help="How often `up` is killed.")
@click.option(
    "--each", type=click.IntRange(1, 20), default=1, show_default=True, help="How often one cluster's `up` is killed."
)
@click.option("--first", type=click.IntRange(1, 200), default=1, show_default=True, help="The killed cluster to begin with.")
@click.option("--last", type=click.IntRange(1, 200), help="The killed cluster to end with.")
@click.option("--length", type=click.FloatRange(1), help="Seconds of an undisturbed `up`, which then is not built.")
@click.option(
    "--count", "many", type=click.IntRange(4, 100), default=20, show_default=True, help="Services and claims that come and go."
)
@click.option("--minutes", type=click.FloatRange(0.5, 120), default=10, show_default=True, help="How long the cloud is gone.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form of the output.")
def main(
    only: tuple[str, ...],
    seed: int,
    *,
    count: int,
    each: int,
    first: int,
    last: int | None,
    length: float | None,
    many: int,
    minutes: float,
    output: str,
) -> None:
    """Break things for minutes and look whether moyai puts them right."""
    if os.geteuid() != 0:
        raise click.UsageError("machines and namespaces need root")
    results, began, load = Results(_say), time.time(), os.getloadavg()
    wanted = only or SCENARIOS
    given = os.environ.get("MOYAI_TEST_CLOUD")
    try:
        with tempfile.TemporaryDirectory(prefix="moyai-chaos-") as folder, running_cloud(CONFIG, given=given) as cloud:
            place = Path(folder)
            if kills.NAME in wanted:
                asked = kills.Kills(seed, count, each, first, last, length)
                kills.run(results, cloud, folder=place / kills.NAME, asked=asked)
            if together.NAME in wanted:
                together.run(results, cloud, folder=place / together.NAME)
            if {leaders.NAME, outage.NAME} & set(wanted):
                with standing(results, cloud, folder=place / "standing") as cluster:
                    if leaders.NAME in wanted:
                        leaders.run(results, cluster, folder=place, count=many)
                    if outage.NAME in wanted:
                        outage.run(results, cluster, folder=place, minutes=minutes)
    finally:
        # also of a run that was interrupted
        _show(results, output, began=began, load=load)
    if results.faults:
        sys.exit(1)


if __name__ == "__main__":
    main()

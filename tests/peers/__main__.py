"""``python -m tests.peers``: the race of two controllers and gophercloud's acceptance tests, on a cloud of its own. Needs root.

The exit code is 1 where an acceptance test did what its list of expectations does not say, or something could not be measured.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from moyai import __version__
from moyai.core.errors import MoyaiError
from moyai.core.paths import default_paths
from moyai.core.progress import Event, Reporter
from moyai.linux.process import ProcessError
from moyai.toolchain.pins import load_pins
from tests.bench.cluster import CommandFailed
from tests.peers import acceptance, expectations, page, site
from tests.peers.controllers import MOYAI, PEER
from tests.peers.race import Race

PARTS = ("race", "acceptance")
COUNTS = (1, 8, 50)


def _say(text: str) -> None:
    click.echo(f"{datetime.now(UTC):%H:%M:%S} {text}", err=True)


def _event(event: Event) -> None:
    if event.kind in ("failed", "note"):
        _say(f"  {event.step} {event.detail}")


def conditions(before: float) -> dict[str, Any]:
    """What the figures depend on. ``before``: the load average when the part began."""
    return {
        "moyai": __version__,
        "processors": os.cpu_count(),
        "load before": round(before, 1),
        "load after": round(os.getloadavg()[0], 1),
    }


class Peers:
    def __init__(self, *, counts: tuple[int, ...], packages: tuple[str, ...], log: Path) -> None:
        self._reporter = Reporter(_event)
        self._counts, self._packages, self._log = counts, packages, log
        self.measured: dict[str, Any] = {}
        self.problems: list[str] = []

    def run(self, parts: frozenset[str]) -> None:
        """Measure; what was measured before a failure stays in ``measured``."""
        _say("components (not measured)")
        programs = acceptance.programs(self._reporter) if "acceptance" in parts else {}
        if unknown := set(self._packages) - set(programs) and programs:
            raise click.UsageError(f"no package {', '.join(sorted(unknown))}: there are {', '.join(programs)}")
        with site.cloud(self._reporter) as cloud:
            if "race" in parts:
                self._race(cloud)
            if "acceptance" in parts:
                self._acceptance(cloud, programs)

    def _race(self, cloud: str) -> None:
        before, laps = os.getloadavg()[0], list[dict[str, Any]]()
        _say("a cluster with both controllers (not measured)")
        with site.cluster(cloud, self._reporter) as controllers:
            race = Race(default_paths().clusters / site.CLUSTER / "kubeconfig", cloud)
            race.prepare()
            for count in self._counts:
                for name in (PEER, MOYAI):
                    controllers.run(name)
                    if count == self._counts[0]:
                        _say(f"{name}: the first Service on this cloud (not measured)")
                        race.lap(name, 1)
                    lap = race.lap(name, count).data()
                    _say(f"{name}, {count} Services: {lap}")
                    laps.append(lap)
                    kubernetes = load_pins().components["kubernetes"].version
                    found = {**conditions(before), PEER: controllers.version, "Kubernetes": kubernetes}
                    if len({one["controller"] for one in laps if one["count"] == count}) == 2:
                        self.measured["race"] = {"conditions": found, "laps": list(laps)}

    def _acceptance(self, cloud: str, programs: Mapping[str, Path]) -> None:
        before, expected, states = os.getloadavg()[0], expectations.load(), dict[str, dict[str, int]]()
        wanted = {name: program for name, program in programs.items() if not self._packages or name in self._packages}
        with acceptance.Site(cloud) as place:
            for name, program in wanted.items():
                results = acceptance.run(place, program, package=name, log=self._log, say=_say)
                found = expectations.problems(results, expected, packages=[name])
                self.problems += found
                states[name] = {}
                for one in results:
                    states[name][one.state] = states[name].get(one.state, 0) + 1
                _say(f"{name}: {', '.join(f'{number} {state}' for state, number in states[name].items())}")
                for line in found:
                    _say(f"  {line}")
        if not self._packages and not self.problems:
            version = load_pins().components[acceptance.COMPONENT].version
            self.measured["acceptance"] = {"conditions": {"gophercloud": version, **conditions(before)}, "states": states}


@click.command()
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Only this part (may be given several times).")
@click.option("--package", "packages", multiple=True, help="Only the acceptance tests of this package, as loadbalancer/v2.")
@click.option("--count", "counts", multiple=True, type=click.IntRange(1, 100), help="Only so many Services at once.")
@click.option("--log", type=click.Path(file_okay=False, path_type=Path), help="A folder for what the tests print.")
@click.option("--keep", is_flag=True, help="Write what was measured into the documentation.")
def main(only: tuple[str, ...], packages: tuple[str, ...], counts: tuple[int, ...], log: Path | None, keep: bool) -> None:
    """Race moyai's cloud controller manager against OpenStack's, and run gophercloud's acceptance tests."""
    if os.geteuid() != 0:
        raise click.UsageError("machines and namespaces need root")
    peers = Peers(counts=counts or COUNTS, packages=packages, log=log or default_paths().state / "peers")
    failure = ""
    try:
        peers.run(frozenset(only or PARTS))
    except (MoyaiError, ProcessError, CommandFailed, TimeoutError, RuntimeError) as error:
        failure = " ".join(str(error).split())
    if race := peers.measured.get("race"):
        click.echo("\n".join(page.race_table(race["laps"])))
    if states := peers.measured.get("acceptance"):
        click.echo("\n".join(page.acceptance_table(states["states"])))
    if keep and not failure:
        page.keep(peers.measured)
    for problem in peers.problems:
        click.echo(problem, err=True)
    if failure:
        click.echo(f"not all was measured: {failure}", err=True)
    if failure or peers.problems:
        sys.exit(1)


if __name__ == "__main__":
    main()

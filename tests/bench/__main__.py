"""``python -m tests.bench [--only NAME]… [--output json]``: measures the whole, on a local cloud of its own. Needs root.

Nothing here passes or fails by a figure: a run that could measure ends with 0. Progress goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
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
from tests.bench import balancers, floor, observe, service, volumes
from tests.bench import cluster as clusters
from tests.bench.cloud import CONFIG, BenchCloud
from tests.bench.figures import Figure, Samples, table
from tests.conditions import conditions

PARTS = ("cloud", "floor", "balancers", "up", "service", "volumes", "down")
#: The most that is wanted: seconds, or times the floor.
CLOUD_GOALS = {"from nothing": 100.0, "from a snapshot": 50.0}
UP_GOALS = {observe.DNS: 1.2}
AGAIN_GOAL, SERVICE_GOALS, DOWN_GOAL = 10.0, {service.ANSWER: 1.2}, 20.0
#: One claim is measured so often, many at once only once.
_ONE_CLAIM = 3
VOLUME_GOALS = {volumes.phase(count): 1.5 for count in (1, volumes.MANY)}


def _load() -> float:
    return os.getloadavg()[0]


def _say(text: str) -> None:
    click.echo(f"{datetime.now(UTC):%H:%M:%S} {text}", err=True)


class Bench:
    def __init__(self, wanted: frozenset[str], runs: int, *, services: int) -> None:
        self.wanted, self.runs, self.services = wanted, runs, services
        self.paths = default_paths()
        self.reporter = Reporter(self._event)
        self.cloud = BenchCloud(self.paths, self.reporter)
        self.figures: list[Figure] = []
        self.details: dict[str, Any] = {}
        self.verbose = False
        self.samples = {name: Samples(name) for name in PARTS}
        self.direct = Samples("service")
        self.bare_volumes = Samples("volumes")
        self.calls = Samples("service")
        self.one_balancer = Samples("balancers")

    def _event(self, event: Event) -> None:
        if event.kind in ("finished", "failed") and (self.verbose or event.kind == "failed"):
            _say(f"  {event.step} {event.seconds:.1f} s {event.detail}")

    def run(self) -> None:
        """Measure. What was made is removed, also after a failure; what was measured before it stays."""
        _say("components and node image (not measured)")
        image = self.cloud.components().path
        with contextlib.ExitStack() as undo:
            folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="moyai-bench-")))
            floor_folder: Path | None = None
            if self.wanted & {"floor", "up"}:
                _say("unpacking the node image for the floor (not measured)")
                floor_folder = floor.unpack(self.paths, image)
                undo.callback(floor.remove, floor_folder)
                self._floor(floor_folder)
            if self.wanted - {"floor"}:
                undo.callback(self.cloud.remove)
                self._cloud()
            if "balancers" in self.wanted:
                self._balancers()
            if self.wanted & {"up", "service", "volumes", "down"}:
                self._clusters(folder)

    def _floor(self, folder: Path) -> None:
        for number in range(self.runs):
            _say(f"floor: machines and kubeadm without a cloud, {number + 1} of {self.runs}")
            self._add("floor", _ordered(floor.measure(folder, clusters.cluster())))

    def _cloud(self) -> None:
        self.cloud.remove()  # what an earlier run left when it was killed
        if "cloud" not in self.wanted:
            _say("cloud (not measured)")
            self.cloud.start(from_nothing=not self.cloud.have_snapshot())
            return
        for how, from_nothing in (("from nothing", True), ("from a snapshot", False)):
            _say(f"cloud {how}")
            timings = self.cloud.start(from_nothing=from_nothing)
            self.details[f"cloud {how}"] = timings
            self._add("cloud", {how: timings["whole"]})
            if from_nothing:
                self._add("cloud", {"down": self.cloud.stop()})

    def _balancers(self) -> None:
        with balancers.BalancerBench(CONFIG.name) as measure:
            _say("load balancers: the first on this cloud (not measured)")
            measure.measure(1)
            for count in (*[1] * self.runs, *balancers.COUNTS):
                _say(f"load balancers: {count}")
                phases = measure.measure(count)
                self._add("balancers", phases)
                if count == 1:
                    self._one_alone(phases)

    def _one_alone(self, phases: Mapping[str, float]) -> None:
        """What several at once are compared with."""
        for count in balancers.COUNTS[1:2]:
            alone = {balancers.made(count): phases[balancers.made(1)], balancers.deleted(count): phases[balancers.deleted(1)]}
            self.one_balancer.add(alone, _load())

    def _clusters(self, folder: Path) -> None:
        _say("node image and nginx into the cloud")
        self._add("cloud", {"node image and nginx into it": self.cloud.base()})
        bench = clusters.BenchCluster(self.paths, folder)
        try:
            if "up" in self.wanted:
                _say("up, the first on this cloud")
                self._add("up", {clusters.COLD: bench.up()[0][observe.DNS]})
                bench.down()
            for number in range(self.runs):
                _say(f"up, {number + 1} of {self.runs}")
                phases, done = bench.up()
                self._add("up", phases)
                self.details.setdefault("up, steps", []).append(done.steps)
                self._add("up", {clusters.AGAIN: bench.again()})
                if "volumes" in self.wanted:
                    self._volumes(bench)
                if self.wanted & {"service", "down"}:
                    self._services(bench)
                _say("down")
                done = bench.down()
                self._add("down", {clusters.DOWN: done.seconds})
                self.details.setdefault("down, steps", []).append(done.steps)
        finally:
            bench.remove()

    def _services(self, bench: clusters.BenchCluster) -> None:
        record = bench.record
        assert record is not None
        measure = service.ServiceBench(record, bench.kubeconfig, logs=self.cloud.folders.log)
        _say("pods of the Service (not measured)")
        measure.prepare()
        rounds = self.services if "service" in self.wanted else 0
        for number in range(rounds):
            _say(f"Service and load balancer, {number + 1} of {rounds}")
            phases, calls, requests = measure.service()
            tree = measure.tree()
            phases[service.GONE] = measure.delete()
            self._add("service", phases)
            self.calls.add({**{f"requests to {api}": float(n) for api, n in sorted(calls.items())}}, _load())
            self.calls.add({"requests in all": float(sum(calls.values()))}, _load())
            self.details.setdefault("service, requests", []).append([" ".join(request) for request in requests])
            self.direct.add(measure.direct(tree), _load())
        measure.service()  # `down` has something to do

    def _volumes(self, bench: clusters.BenchCluster) -> None:
        record = bench.record
        assert record is not None
        measure = volumes.VolumeBench(CONFIG.name, record, kubeconfig=bench.kubeconfig)
        for count in (*[1] * _ONE_CLAIM, volumes.MANY):
            _say(f"claims of volumes: {count}")
            self._add("volumes", measure.claims(count))
            self.bare_volumes.add(measure.direct(count), _load())

    def _add(self, part: str, phases: Mapping[str, float]) -> None:
        self.samples[part].add(phases, _load())
        if self.verbose:
            for phase, value in phases.items():
                _say(f"  {part}: {phase} {value:.1f}")

    def results(self) -> list[Figure]:
        """What was asked for, with its floors and goals."""
        samples, wanted = self.samples, self.wanted
        found: list[Figure] = []
        if wanted & {"cloud", "up"}:
            found += samples["cloud"].figures(goals=CLOUD_GOALS)
        if "floor" in wanted and "up" not in wanted:
            found += samples["floor"].figures()
        if "balancers" in wanted:
            found += samples["balancers"].figures(floor=self.one_balancer, goals=balancers.GOALS)
        if "up" in wanted:
            goals = {**UP_GOALS, clusters.AGAIN: AGAIN_GOAL}
            found += samples["up"].figures(floor=samples["floor"], goals=goals)
        if "service" in wanted:
            found += samples["service"].figures(floor=self.direct, goals=SERVICE_GOALS)
            found += self.calls.figures(unit="calls")
        if "volumes" in wanted:
            found += samples["volumes"].figures(floor=self.bare_volumes, goals=VOLUME_GOALS)
        if "down" in wanted:
            found += samples["down"].figures(goals={clusters.DOWN: DOWN_GOAL})
        return found


def _ordered(phases: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(phases.items(), key=lambda item: item[1]))


@click.command()
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Measure only this part (may be given several times).")
@click.option("--runs", type=click.IntRange(1, 20), default=1, show_default=True, help="How often floor, `up` and `down` run.")
@click.option("--services", type=click.IntRange(1, 50), default=3, show_default=True, help="Services measured per cluster.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form of the output.")
@click.option("--verbose", is_flag=True, help="Say what each step took while it runs.")
def main(only: tuple[str, ...], runs: int, services: int, output: str, verbose: bool) -> None:
    """Measure the local cloud, load balancers, `moyai up` and `down`, Services and volumes, against what is possible."""
    if os.geteuid() != 0:
        raise click.UsageError("machines and namespaces need root")
    bench = Bench(frozenset(only or PARTS), runs, services=services)
    bench.verbose = verbose
    began, load = time.time(), os.getloadavg()
    failure = ""
    try:
        bench.run()
    except (MoyaiError, ProcessError, floor.FloorError, clusters.CommandFailed, TimeoutError, RuntimeError) as error:
        failure = " ".join(str(error).split())
    about = {**conditions(began=began, load=load), "failure": failure}
    figures = bench.results()
    if output == "json":
        click.echo(json.dumps({**about, "figures": [one.data() for one in figures], "details": bench.details}, indent=1))
    else:
        before, after = about["load before"], about["load after"]
        click.echo(f"moyai {__version__}, {about['processors']} processors, load {before} before and {after} after\n")
        click.echo("\n".join(table(figures)))
    if failure:
        click.echo(f"not all was measured: {failure}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

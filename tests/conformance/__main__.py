"""``python -m tests.conformance [--part NAME]…``: Kubernetes' own tests on a cluster that is made for them. Needs root.

The result of each test is kept in the state folder as soon as the test ends. A run goes on where the last one stopped: it runs
the tests that have no result. Exit code 1: a test failed that is not expected to, or tests are left.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from moyai import __version__
from moyai.core.errors import MoyaiError
from moyai.core.paths import default_paths
from moyai.core.progress import Event, Reporter
from moyai.linux.process import ProcessError
from tests.conformance import page
from tests.conformance.cluster import Site, commit, lacks, versions
from tests.conformance.ginkgo import Programs, Target, command, run_tests
from tests.conformance.log import Outcome
from tests.conformance.parts import HERE, LEAST_PROCESSES, Part, Spec, parts, pending
from tests.conformance.results import Expected, Kept, Store, from_json, judge, merged, read_expected, to_json

ROOT = HERE.parents[1]
REFERENCE = ROOT / "docs/reference"
KEPT = REFERENCE / "conformance/results.json"
PARTS = parts()


def _say(text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)


def _event(event: Event) -> None:
    if event.kind in ("finished", "failed", "note"):
        _say(f"{event.kind} {event.step} {event.seconds:.1f} s {event.detail}")


@dataclass(frozen=True)
class Run:
    """One run over some parts. ``ends``: the moment (monotonic) at which it stops; ``folder``: where results and logs are."""

    folder: Path
    programs: Programs
    expected: Sequence[Expected]
    ends: float
    processes: int | None

    @property
    def store(self) -> Store:
        return Store(self.folder / "results.jsonl")

    def left(self, part: Part, specs: Sequence[Spec]) -> list[str]:
        """The part's tests that are still to be run on this host."""
        done = {one.name for one in self.store.load() if one.suite == part.suite}
        out = {one.name for one in self.expected if one.suite == part.suite and one.without}
        return pending(part, specs, done=done | out)

    def run(self, part: Part, names: Sequence[str], *, target: Target) -> None:
        """Run the tests ``names`` of a part, as long as there is time."""
        seconds = self.ends - time.monotonic()
        if not names or seconds < 60:
            return
        target.clear(self.programs.kubectl)
        made, total = commit(), len(names)
        count = 0

        def keep(outcome: Outcome) -> None:
            nonlocal count
            count += 1
            self.store.add(part.suite, outcome, commit=made)
            _say(f"{part.name} {count}/{total} {outcome.state} {outcome.seconds:.0f} s {outcome.name}")
            if outcome.said:
                _say(f"    {outcome.said}")

        words = command(self.programs, target, part=part, names=names, processes=self.processes or part.processes)
        log = self.folder / ("e2e.log" if part.suite == "conformance" else f"{part.suite}.log")
        run_tests(words, names, log=log, seconds=self.ends - time.monotonic(), on_outcome=keep)


@click.command()
@click.option("--part", "names", multiple=True, type=click.Choice(list(PARTS)), help="Run this part; all, where none is given.")
@click.option("--failed", is_flag=True, help="Run the failed tests of the parts again, beside those without a result.")
@click.option("--afresh", is_flag=True, help="Forget the results of the parts first.")
@click.option("--minutes", type=float, default=60 * 24, help="Stop after this time; the next run goes on.")
@click.option(
    "--processes", type=click.IntRange(min=LEAST_PROCESSES), help="How many tests run at once, instead of the part's number."
)
@click.option("--keep", is_flag=True, help="Leave cloud and cluster for the next run.")
@click.option("--results", type=click.Path(path_type=Path), help="Folder for results and logs.")
@click.option("--write", is_flag=True, help="Write the results into docs/reference.")
def main(
    names: Sequence[str],
    *,
    failed: bool,
    afresh: bool,
    minutes: float,
    processes: int | None,
    keep: bool,
    results: Path | None,
    write: bool,
) -> None:
    """Run Kubernetes' own tests against a cluster of their own; needs root."""
    ends = time.monotonic() + minutes * 60
    # in the background SIGINT is ignored: SIGTERM ends a run as Ctrl-C does, with cloud and cluster
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    paths, reporter = default_paths(), Reporter(_event)
    folder = results or paths.make_state("conformance")
    folder.mkdir(parents=True, exist_ok=True)
    expected = read_expected((HERE / "expected.toml").read_text(), lacks=lacks)
    run = Run(folder, Programs.ensure(paths, reporter), expected, ends, processes)
    listed = {words: run.programs.specs(words) for words in {tuple(part.words) for part in PARTS.values()}}
    specs = {part.name: listed[tuple(part.words)] for part in PARTS.values()}
    wanted = [part for part in PARTS.values() if part.name in (names or PARTS)]
    for part in wanted:
        _forget(run.store, part, specs=specs[part.name], failed=failed, afresh=afresh)
    try:
        _run_all(run, Site(paths, reporter), wanted=wanted, specs=specs, keep=keep)
    finally:
        kept = Kept(versions(paths), {name: _chosen(PARTS[name], specs[name]) for name in PARTS}, run.store.load())
        _bundle(folder, kept)
        if write:
            _write(kept)
    sys.exit(_verdict(run, wanted, specs=specs, kept=kept))


def _chosen(part: Part, specs: Sequence[Spec]) -> list[str]:
    return pending(part, specs, done=())


def _forget(store: Store, part: Part, *, specs: Sequence[Spec], failed: bool, afresh: bool) -> None:
    mine = set(_chosen(part, specs))
    found = [one for one in store.load() if one.suite == part.suite and one.name in mine]
    store.reset(part.suite, [one.name for one in found if afresh])
    store.retry(part.suite, [one.name for one in found if failed and not afresh and one.state == "failed"])


def _run_all(run: Run, site: Site, *, wanted: Sequence[Part], specs: Mapping[str, Sequence[Spec]], keep: bool) -> None:
    if not any(run.left(part, specs[part.name]) for part in wanted):
        _say("every test of these parts has a result")
        return
    try:
        target = site.start()
        for part in wanted:
            run.run(part, run.left(part, specs[part.name]), target=target)
    finally:
        if not keep:
            site.end()


def _bundle(folder: Path, kept: Kept) -> None:
    """The files that the conformance programme asks for, beside e2e.log, which is written while the tests run."""
    (folder / "junit_01.xml").write_text(page.junit(kept.results))
    (folder / "PRODUCT.yaml").write_text(page.product(__version__))
    (folder / "README.md").write_text(page.readme(kept.versions["kubernetes"]))


def _write(kept: Kept) -> None:
    KEPT.parent.mkdir(exist_ok=True)
    before = from_json(KEPT.read_text()) if KEPT.exists() else None
    if before and before.versions["kubernetes"] == kept.versions["kubernetes"]:
        kept = dataclasses.replace(kept, results=merged(before.results, kept.results))
    KEPT.write_text(to_json(kept))
    _bundle(KEPT.parent, kept)
    readme = ROOT / "README.md"
    readme.write_text(page.with_summary(readme.read_text(), kept))
    # the page is the same on every host
    expected = read_expected((HERE / "expected.toml").read_text(), lacks=lambda _: True)
    (REFERENCE / "conformance.md").write_text(page.page(kept, list(PARTS.values()), expected=expected))


def _verdict(run: Run, wanted: Sequence[Part], *, specs: Mapping[str, Sequence[Spec]], kept: Kept) -> int:
    suites = {part.suite for part in wanted}
    verdict = judge([one for one in kept.results if one.suite in suites], run.expected)
    for one in verdict.wrong:
        _say(f"{one.state}: {one.name}: {one.said}")
    for one in verdict.surprising:
        _say(f"passed although expected.toml has it: {one.name}")
    left = {part.name: len(run.left(part, specs[part.name])) for part in wanted}
    for name, count in left.items():
        if count:
            _say(f"{name}: {count} tests have no result yet")
    return 1 if verdict.wrong or any(left.values()) else 0


if __name__ == "__main__":
    try:
        main()
    except (MoyaiError, ProcessError) as error:
        click.echo(f"conformance: {error}", err=True)
        sys.exit(2)

"""What tests of several kinds share: the local cloud that `cloud` and `e2e` tests run against.

It is a cloud of its own (name, ranges, state folder), so that it neither meets nor harms the user's; it starts when the first
test asks for it and goes with the last, and its going is a test as well: whatever it left on the host fails the run.
A run that was killed leaves its cloud behind, with clusters that take the room of the next run's: a run begins by removing it.
``MOYAI_TEST_CLOUD`` names a running cloud to use instead (an entry of clouds.yaml), which then is left as it is.

``pytest --clusters=shared`` runs the end-to-end tests of the cluster that most of them share, ``--clusters=own`` the others.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from moyai.cli import prepare
from moyai.core.locks import file_lock
from moyai.core.paths import Paths, default_paths
from moyai.core.progress import Event, Reporter
from moyai.localcloud import ends
from moyai.localcloud import start_stop as local
from moyai.localcloud.layout import LocalCloudConfig

# For the whole run and every process that it starts; beside the user's own state, so on one file system with the cache.
if "MOYAI_TEST_CLOUD" not in os.environ and "MOYAI_STATE_DIR" not in os.environ:
    os.environ["MOYAI_STATE_DIR"] = str(default_paths().state.with_name("moyai-test"))

TEST_CLOUD = LocalCloudConfig(name="test", management_cidr="10.254.0.0/24", external_cidr="10.253.0.0/24")


def _say(event: Event) -> None:
    if event.kind in ("finished", "failed", "note"):
        print(f"[{event.kind} {event.step} {event.seconds:.1f} s {event.detail}]", file=sys.stderr, flush=True)


def remove_leftovers(config: LocalCloudConfig, paths: Paths) -> None:
    """Remove what a killed run left: the cloud, whichever folder it runs from, and the records of its clusters."""
    own = paths.cloud(config.name)
    roots = ends.running_roots(config.name)
    for root in roots | {own} if own.exists() else roots:
        assert local.down(config, replace(paths, state=root.parent.parent), reporter=Reporter(_say)) == []
    for record in paths.clusters.glob("*/record.json"):
        if json.loads(record.read_text())["spec"]["spec"]["cloud"] == config.name:
            shutil.rmtree(record.parent)


@contextmanager
def alone(config: LocalCloudConfig) -> Generator[None]:
    """No other run uses a cloud of this name meanwhile: of two runs, one waits."""

    def wait(holder: str) -> None:
        print(f"waiting for {holder}, whose tests use the cloud {config.name!r}", file=sys.stderr, flush=True)

    with file_lock(Path("/run/lock") / f"moyai-tests-{config.name}.lock", wait):
        yield


@contextmanager
def running_cloud(config: LocalCloudConfig = TEST_CLOUD, *, given: str | None = None) -> Generator[str]:
    """A cloud of the tests' own with the node image in it, for as long as it lasts; afterwards nothing of it may be left.

    ``given``: a running cloud to use instead.
    """
    if given:
        yield given
        return
    paths, reporter = default_paths(), Reporter(_say)
    with alone(config):
        remove_leftovers(config, paths)
        prepare.ensure_cluster_base(config.name, paths, reporter=reporter, config=config)
        try:
            yield config.name
        finally:
            left = local.down(config, paths, reporter=reporter)
        assert left == []


@pytest.fixture(scope="session")
def cloud_name() -> Generator[str]:
    """The name of a running cloud with the node image in it."""
    with running_cloud(given=os.environ.get("MOYAI_TEST_CLOUD")) as name:
        yield name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--clusters", choices=("shared", "own"), help="only tests with the shared cluster, or only the others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--clusters")
    if wanted is None:
        return
    halves: dict[str, list[pytest.Item]] = {"shared": [], "own": []}
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        halves["shared" if {"cluster", "shared"} & set(fixtures) else "own"].append(item)
    other = halves["own" if wanted == "shared" else "shared"]
    config.hook.pytest_deselected(items=other)
    items[:] = halves[wanted]

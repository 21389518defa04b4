"""One cluster for all tests that need no cluster of their own: one control plane, two workers, the quickstart's web server."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import pytest

from tests.e2e.driver import Cluster

#: Progress lines at which the shared cluster's first `up`s are killed: groups being made, ports made, machines booting.
MOMENTS = ("… rules", "✓ port", "… machines boot")


@pytest.fixture(scope="session")
def cluster(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    """The shared cluster, up and answering; built by an `up` that was killed again and again."""
    made = Cluster(tmp_path_factory.mktemp("shared"), cloud_name, manifests=True)
    try:
        for moment in MOMENTS:
            made.killed_up(moment)
        made.moyai("up", str(made.folder))
        yield made
    finally:
        with contextlib.suppress(AssertionError):
            made.moyai("down", made.name, "--yes")

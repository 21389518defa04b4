"""The cluster that end-to-end tests share: one control plane, two workers in two zones, the quickstart's web server.

Made when the first test asks for it, by an `up` that is killed again and again and then finished; it goes with the last test,
and its going is a test as well. ``MOYAI_TEST_CLUSTER`` names a running cluster for the tests of Services to use instead.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest

from moyai.cloud.openstack import OpenStackCloud, connect
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.toolchain import Toolchain
from tests.e2e.disks import Zoned
from tests.e2e.driver import MOYAI, Cluster, said
from tests.e2e.place import Place
from tests.e2e.reach import where_lost
from tests.e2e.space import Space, delete_namespaces

#: Progress lines at which the shared cluster's first `up`s are killed: ports made, machines booting, the router half made.
MOMENTS = ("✓ port", "… machines boot", "… gateway")


@functools.cache
def kubectl_program() -> str:
    return str(Toolchain(default_paths(), Reporter()).ensure(["kubernetes"])["kubernetes"].files["kubectl"])


@dataclass(frozen=True)
class SharedCluster:
    """A running cluster, driven by the command line as a user does it; ``cloud`` looks behind it."""

    name: str
    uid: str
    cloud: OpenStackCloud

    def moyai(self, *words: str, stdin: str | None = None, timeout: float = 900) -> str:
        """What the command printed; AssertionError with all it said when it failed."""
        environment = {**os.environ, "MOYAI_CLUSTER": self.name}
        done = subprocess.run(
            [*MOYAI, *words], input=stdin, capture_output=True, text=True, timeout=timeout, env=environment, check=False
        )
        assert done.returncode == 0, said("moyai", words, done)
        return done.stdout

    def kubectl(self, *words: str, stdin: str | None = None, timeout: float = 120) -> str:
        """The same program as `moyai kubectl`, without the second that it takes to find it: tests call it hundreds of times."""
        argv = [kubectl_program(), f"--kubeconfig={default_paths().clusters / self.name / 'kubeconfig'}", *words]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        if "Unable to connect to the server" in done.stderr:
            address = re.search(r"dial tcp ([0-9.]+):", done.stderr)
            place = where_lost(self.cloud.name, address[1]) if address else "no address was tried"
            pytest.fail(f"the API does not answer; {place}; {said('kubectl', words, done)}")
        assert done.returncode == 0, said("kubectl", words, done)
        return done.stdout

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))


@pytest.fixture(scope="session")
def cluster(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    """The shared cluster, up and answering."""
    made = Cluster(tmp_path_factory.mktemp("shared"), cloud_name, manifests=True)
    try:
        for moment in MOMENTS:
            made.killed_up(moment)
        made.moyai("up", str(made.folder))
        yield made
    finally:
        report = json.loads(made.moyai("down", made.name, "--yes", "--output", "json").stdout)
    assert report["left"] == 0


@pytest.fixture(scope="session")
def shared(cloud_name: str, request: pytest.FixtureRequest) -> SharedCluster:
    """The same cluster, with the cloud behind it."""
    given = os.environ.get("MOYAI_TEST_CLUSTER") or request.getfixturevalue("cluster").name
    made = SharedCluster(given, "", connect(cloud_name))
    uid = json.loads(made.moyai("status", given, "--output", "json"))["uid"]
    return SharedCluster(given, uid, made.cloud)


@pytest.fixture(scope="module")
def place(shared: SharedCluster) -> Generator[Place]:
    """A namespace with two pods, one on each worker, for Services; nothing of them is left in the end."""
    made = Place(shared)
    try:
        made.start()
        yield made
    finally:
        shared.kubectl("delete", "namespace", made.name, "--ignore-not-found", "--timeout=180s", timeout=200)
    assert made.left() == []


@pytest.fixture(scope="module")
def spaces(shared: SharedCluster) -> Generator[list[str]]:
    made: list[str] = []
    yield made
    delete_namespaces(shared, made)


@pytest.fixture
def space(shared: SharedCluster, spaces: list[str]) -> Space:
    made = Space(shared)
    spaces.append(made.name)
    return made


@pytest.fixture(scope="session")
def zoned(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Zoned]:
    """A cluster of its own for tests that kill machines and empty zones: two workers in az1, one in az2.

    The last of them takes it down (test_volumes_end.py).
    """
    made = Zoned(tmp_path_factory.mktemp("zoned"), cloud_name)
    try:
        made.moyai("up", str(made.folder))
        yield made
    finally:
        if made.objects():
            report = json.loads(made.moyai("down", made.name, "--yes", "--output", "json").stdout)
            assert report["left"] == 0

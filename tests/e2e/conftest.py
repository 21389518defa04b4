"""The cluster that end-to-end tests share: one control plane, two workers in two zones, made when the first test asks for it.

It goes with the last test, and its going is a test as well. ``MOYAI_TEST_CLUSTER`` names a running cluster to use instead,
which then is left as it is.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import pytest

from moyai.cloud.openstack import OpenStackCloud, connect

MOYAI = [sys.executable, "-c", "from moyai.cli.main import main; main()"]


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
        assert done.returncode == 0, f"moyai {' '.join(words)}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def kubectl(self, *words: str, stdin: str | None = None, timeout: float = 120) -> str:
        return self.moyai("kubectl", *words, stdin=stdin, timeout=timeout)

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))


@pytest.fixture(scope="session")
def shared(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[SharedCluster]:
    if given := os.environ.get("MOYAI_TEST_CLUSTER"):
        made = SharedCluster(given, "", connect(cloud_name))
        uid = json.loads(made.moyai("status", given, "--output", "json"))["uid"]
        yield SharedCluster(given, uid, made.cloud)
        return
    name = f"e2e-{secrets.token_hex(3)}"
    file = tmp_path_factory.mktemp("shared") / "cluster.yaml"
    pools = [{"name": "workers", "replicas": 2}]
    file.write_text(json.dumps({"metadata": {"name": name}, "spec": {"cloud": cloud_name, "nodePools": pools}}))
    made = SharedCluster(name, "", connect(cloud_name))
    try:
        summary = json.loads(made.moyai("up", str(file), "--output", "json"))
        yield SharedCluster(name, summary["uid"], made.cloud)
    finally:
        report = json.loads(made.moyai("down", name, "--yes", "--output", "json"))
    assert report["left"] == 0

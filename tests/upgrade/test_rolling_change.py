"""A kubelet's setting changes in the spec: `up` replaces the control plane and both workers, and no request fails."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.e2e.driver import Cluster
from tests.e2e.place import until
from tests.e2e.test_nodes import Answers, asked, healthy


class Rolled(Cluster):
    """One control plane whose API has a virtual address, so that another machine can take its place, and two workers."""

    limit = 4096

    def write(self, workers: int) -> None:
        spec = {
            "cloud": self.cloud,
            "controlPlane": {"endpoint": "vrrp", "flavor": "m1.small"},
            "nodePools": [{"name": "workers", "replicas": workers}],
            "security": {"podPidsLimit": self.limit},
        }
        (self.folder / "cluster.yaml").write_text(json.dumps({"metadata": {"name": self.name}, "spec": spec}))


@pytest.fixture(scope="module")
def rolled(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Rolled]:
    made = Rolled(tmp_path_factory.mktemp("rolled"), cloud_name, manifests=True)
    manifest = made.folder / "nginx.yaml"
    # what the page on replaced machines asks of users: a pod answers until nobody sends to it any more, and one always stays
    text = manifest.read_text().replace(
        "          image: nginx\n", "          image: nginx\n          lifecycle: {preStop: {sleep: {seconds: 5}}}\n"
    )
    manifest.write_text(f"{text.rstrip()}\n---\n{json.dumps(budget())}\n")
    try:
        yield made
    finally:
        report = json.loads(made.moyai("down", made.name, "--yes", "--output", "json").stdout)
    assert report["left"] == 0


def budget() -> dict[str, object]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    }


def test_no_request_fails_while_all_machines_are_replaced(rolled: Rolled) -> None:
    url = rolled.up()["endpoints"][0]["url"]
    until(lambda: healthy(rolled) == 2, 60)
    before = {one["name"]: one for one in rolled.status()["nodes"]}
    rolled.limit = 2000
    rolled.write(2)
    with asked(url) as answers:
        until(lambda: answers.count > 100, 60)
        began = time.monotonic()
        said = rolled.moyai("up", str(rolled.folder)).stderr
        took = time.monotonic() - began
        count = answers.count
        until(lambda: answers.count > count + 100, 60)
    report(answers, took, said=said, folder=rolled.folder)
    after = rolled.status()
    assert answers.failures == []
    assert after["problems"] == []
    assert sorted(one["name"].partition("-")[0] for one in after["nodes"]) == ["e2e"] * 3
    assert before.keys().isdisjoint({f"{rolled.name}-control-plane-1"})
    assert {one["name"] for one in after["nodes"]} == {
        f"{rolled.name}-control-plane-1",
        f"{rolled.name}-workers-0",
        f"{rolled.name}-workers-2",
    }
    for node in after["nodes"]:
        config = json.loads(rolled.kubectl("get", "--raw", f"/api/v1/nodes/{node['name']}/proxy/configz"))
        assert config["kubeletconfig"]["podPidsLimit"] == 2000
    assert json.loads(rolled.moyai("plan", str(rolled.folder), "--output", "json").stdout)["steps"] == []


def report(answers: Answers, seconds: float, *, said: str, folder: Path) -> None:
    seen = ("server ", "move ", "stop ", "remove ", "Ready", "drain ", "look ")
    lines = [line for line in said.splitlines() if "✓" in line and any(word in line for word in seen)]
    (folder / "said").write_text(said)
    print(
        f"\n{answers.count} requests answered, {len(answers.failures)} failed, three machines in {seconds:.0f} s",
        *lines,
        sep="\n",
    )

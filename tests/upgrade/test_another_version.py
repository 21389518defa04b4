"""A cluster goes to another version of Kubernetes and no request fails; what it has then is what its machines say.

$MOYAI_TEST_PAIR chooses the versions: ``restamped`` (default), the same sources under a later name, which proves the machinery;
or ``minor``, two minor versions, which are built first.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from typing import Any

import pytest

from tests.e2e.place import until
from tests.e2e.test_nodes import Answers, asked, healthy
from tests.upgrade.test_rolling_change import Rolled, budget

#: The version before and after, and the component that is not built for any other purpose.
PAIRS = {"restamped": ("1.37.1", "1.37.99", "kubernetes-restamped"), "minor": ("1.36.3", "1.37.1", "kubernetes-1.36")}
BEFORE, AFTER, COMPONENT = PAIRS[os.environ.get("MOYAI_TEST_PAIR", "restamped")]


class Upgraded(Rolled):
    """One control plane whose API has a virtual address, and two workers, of the older version."""

    def write(self, workers: int) -> None:
        super().write(workers)
        file = self.folder / "cluster.yaml"
        document = json.loads(file.read_text())
        document["spec"]["kubernetesVersion"] = BEFORE
        file.write_text(json.dumps(document))

    def versions(self) -> dict[str, str]:
        return {one["name"]: one["version"].removeprefix("v") for one in self.status()["nodes"]}


@pytest.fixture(scope="module")
def upgraded(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Upgraded]:
    made = Upgraded(tmp_path_factory.mktemp("upgraded"), cloud_name, manifests=True)
    made.moyai("toolchain", "get", COMPONENT, timeout=3600)
    manifest = made.folder / "nginx.yaml"
    text = manifest.read_text().replace(
        "          image: nginx\n", "          image: nginx\n          lifecycle: {preStop: {sleep: {seconds: 5}}}\n"
    )
    manifest.write_text(f"{text.rstrip()}\n---\n{json.dumps(budget())}\n")
    try:
        yield made
    finally:
        report = json.loads(made.moyai("down", made.name, "--yes", "--output", "json").stdout)
    assert report["left"] == 0


def test_no_request_fails_while_the_version_changes(upgraded: Upgraded) -> None:
    url = upgraded.up()["endpoints"][0]["url"]
    until(lambda: healthy(upgraded) == 2, 60)
    assert set(upgraded.versions().values()) == {BEFORE}
    # as in a cluster that an older moyai made
    old = f"kube-proxy=registry.k8s.io/kube-proxy:v{BEFORE}"
    upgraded.kubectl("set", "image", "daemonset/kube-proxy", old, "-n", "kube-system")
    upgraded.kubectl("rollout", "status", "daemonset/kube-proxy", "-n", "kube-system", "--timeout=180s")
    with asked(url) as answers:
        until(lambda: answers.count > 100, 60)
        there = run(upgraded, answers, "--to", AFTER)
        assert there["version"] == AFTER
        assert there["upgrade"]["stage"] == "soaking"
        assert set(upgraded.versions().values()) == {AFTER}
        # the file still names the older version: it does not take the cluster back
        refused = upgraded.moyai("up", str(upgraded.folder), expect=2).stderr
        assert "`moyai upgrade --rollback` takes the upgrade back" in refused
        assert run(upgraded, answers, "--finalize")["upgrade"] is None
    assert answers.failures == []
    found = upgraded.status()
    assert found["problems"] == []
    assert found["upgrade"] is None
    chosen = ("-n", "kube-system", "-l", "k8s-app=kube-proxy")
    images = upgraded.kubectl("get", "pods", *chosen, "-o", "jsonpath={.items[*].spec.containers[0].image}")
    assert set(images.split()) == {"registry.moyai.dev/kube-proxy:node"}
    config = upgraded.kubectl("get", "configmap", "kubeadm-config", "-n", "kube-system", "-o", "yaml")
    assert f"kubernetesVersion: v{AFTER}" in config


def run(upgraded: Upgraded, answers: Answers, *words: str) -> Any:
    """`moyai upgrade` beside clients that go on before it and after it; returns what it says."""
    count, began = answers.count, time.monotonic()
    done = upgraded.moyai("upgrade", upgraded.name, *words, "--yes", "--output", "json", timeout=1800)
    took, asked_meanwhile = time.monotonic() - began, answers.count - count
    (upgraded.folder / f"said{words[0]}").write_text(done.stderr)
    until(lambda: answers.count > count + asked_meanwhile + 100, 60)
    print(
        f"\nupgrade {' '.join(words)} from {BEFORE}: {took:.0f} s, {asked_meanwhile} requests answered, "
        f"{len(answers.failures)} failed"
    )
    return json.loads(done.stdout)

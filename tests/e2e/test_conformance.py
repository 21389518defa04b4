"""A sample of Kubernetes' own tests, on the cluster with workers in two zones."""

from __future__ import annotations

from pathlib import Path

from moyai.cli import prepare
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.localcloud.layout import CloudPaths
from moyai.localcloud.start_stop import recorded
from tests.conformance.cluster import load_images
from tests.conformance.ginkgo import Programs, Target, command, run_tests
from tests.conformance.log import Outcome
from tests.conformance.parts import parts, quick_names
from tests.e2e.disks import Zoned

#: Seconds for all of them together.
WITHIN = 300.0


def test_a_sample_of_kubernetes_own_tests_passes(zoned: Zoned, tmp_path: Path) -> None:
    paths = default_paths()
    config = recorded(CloudPaths(paths.cloud(zoned.cloud)))
    assert config is not None
    load_images(prepare.ensure_e2e_images(paths, Reporter()), config)
    programs = Programs.ensure(paths, Reporter())
    names, part = quick_names(), parts()["quick"]
    target = Target(paths.clusters / zoned.name / "kubeconfig", nodes=3)
    outcomes: list[Outcome] = []
    words = command(programs, target, part=part, names=names, processes=part.processes)
    run_tests(words, names, log=tmp_path / "e2e.log", seconds=WITHIN, on_outcome=outcomes.append)
    assert [f"{one.name}: {one.state}: {one.said}" for one in outcomes if one.state != "passed"] == []
    assert {one.name for one in outcomes} == set(names)

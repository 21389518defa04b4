"""``moyai doctor`` on a real OpenStack: what it finds is there, and what it proposes can be planned."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.driver import MOYAI, said


def moyai(*words: str, expect: int = 0) -> Any:
    done = subprocess.run([*MOYAI, *words, "--output", "json"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == expect, said("moyai", words, done)
    return json.loads(done.stdout)


def test_the_largest_spec_that_fits_can_be_planned(cloud_name: str, tmp_path: Path) -> None:
    report = moyai("doctor", "--cloud", cloud_name)
    found = {one["subject"]: one for one in report["findings"]}
    assert [one for one in report["findings"] if one["state"] == "missing"] == []
    assert found["login"]["text"].startswith("password of demo in project demo")
    assert found["Nova"]["text"].startswith("2.1 to 2.")
    assert {"Keystone", "Nova", "Neutron", "Glance", "Cinder", "Octavia"} <= set(found)
    assert found["load balancer providers"]["text"]
    spec = report["largest"]
    assert spec["spec"]["nodePools"][0]["replicas"] >= 1
    spec["metadata"]["name"] = "doctor-proposes"
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(spec))
    assert moyai("plan", str(file))["steps"]
    assert moyai("doctor", str(file))["possible"] is True


def test_a_spec_that_asks_for_what_is_not_there_is_refused_by_its_line(cloud_name: str, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump({"spec": {"cloud": cloud_name, "controlPlane": {"flavor": "huge"}}}))
    report = moyai("doctor", str(file), expect=1)
    assert report["possible"] is False
    assert "spec.controlPlane.flavor: 'huge'" in report["findings"][-1]["text"]


@pytest.mark.parametrize("words", [["--cloud", "nowhere"], ["no-such-file.yaml"]])
def test_wrong_input_is_one_line(words: list[str]) -> None:
    done = subprocess.run([*MOYAI, "doctor", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""

"""The CSI sidecars as they were built take the flags that they are started with (``--version`` counts after all of them)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from moyai.cloud.openstack import ADAPTER
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.csi.manifests import SIDECARS, CsiManifestOptions, render
from moyai.images import recipes, references
from moyai.linux.process import run
from moyai.toolchain import Toolchain

IMAGES = {name: references.load().images[name] for name in SIDECARS}


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("name", SIDECARS)
def test_a_sidecar_takes_its_flags(name: str, replicas: int) -> None:
    component = recipes.PROGRAMS[name][0]
    program = Toolchain(default_paths(), Reporter()).ensure([component])[component].files[name]
    options = replace(CsiManifestOptions("demo", ADAPTER.volume_names, "", references.MOYAI, IMAGES), replicas=replicas)
    deployments = [one for one in yaml.safe_load_all(render(options)) if one["kind"] == "Deployment"]
    containers = [one for item in deployments for one in item["spec"]["template"]["spec"]["containers"]]
    (args,) = (one["args"] for one in containers if one["name"] == name)
    said = run([program, *args, "--version"], timeout=30).stdout
    assert said.split()[-1] == references.load().tag(name)

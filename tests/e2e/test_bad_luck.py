"""Faults of a real cloud: moyai reports each in one line with the right exit code, and the next `up` or `down` repairs it."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import openstack
import pytest
import yaml

from moyai.core.paths import default_paths
from moyai.localcloud import clouds_yaml
from tests import sdk
from tests.e2e.driver import Cluster

pytestmark = [
    *sdk.REMOVALS,
]


@pytest.fixture
def admin(cloud_name: str) -> Any:
    return openstack.connect(cloud=f"{cloud_name}-admin")


@pytest.fixture
def unlucky(cloud_name: str, tmp_path: Path) -> Generator[Cluster]:
    """A cluster of one machine that is yet to be made."""
    made = Cluster(tmp_path, cloud_name, workers=0)
    yield made
    if made.objects():
        made.moyai("down", made.name, "--yes")


def last_line(cluster: Cluster, *words: str, expect: int) -> str:
    return cluster.moyai(*words, expect=expect).stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("auth", "line"),
    [
        ({"auth_url": "http://127.0.0.1:1/v3"}, "the cloud elsewhere cannot be reached (Connection refused)"),
        ({"password": "wrong"}, "the cloud does not accept these credentials"),
        ({"project_name": "no-such-project"}, "the cloud does not accept these credentials"),
    ],
)
def test_a_cloud_that_does_not_answer_or_refuses_is_one_line(
    unlucky: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: dict[str, str], line: str
) -> None:
    entry = yaml.safe_load(clouds_yaml.user_file().read_text())["clouds"][unlucky.cloud]
    entry["auth"].update(auth)
    file = tmp_path / "clouds.yaml"
    file.write_text(yaml.safe_dump({"clouds": {"elsewhere": entry}}))
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps({"metadata": {"name": unlucky.name}, "spec": {"cloud": "elsewhere"}}))
    with monkeypatch.context() as patch:
        patch.setenv("OS_CLIENT_CONFIG_FILE", str(file))
        told = last_line(unlucky, "up", str(spec), expect=1)
    assert told.startswith("moyai: ")
    assert line in told
    assert not (default_paths().clusters / unlucky.name).exists()


def test_an_exhausted_quota_is_refused_before_anything_is_made(unlucky: Cluster, admin: Any) -> None:
    project = admin.identity.find_project("demo").id
    usual = admin.compute.get_quota_set(project).cores
    admin.compute.update_quota_set(project, cores=1)
    try:
        told = last_line(unlucky, "up", str(unlucky.folder), expect=1)
    finally:
        admin.compute.update_quota_set(project, cores=usual)
    assert "cores" in told
    assert unlucky.objects() == Counter()


def test_a_server_in_error_is_told_with_its_reason_and_replaced_by_the_next_up(unlucky: Cluster, admin: Any) -> None:
    """A flavor that no machine of the cloud has room for, until the cloud's operator makes it smaller."""
    name = f"huge-{secrets.token_hex(3)}"
    flavor = admin.compute.create_flavor(name=name, ram=60_000, vcpus=2, disk=10)
    try:
        write(unlucky, name)
        told = last_line(unlucky, "up", str(unlucky.folder), expect=1)
        assert f"server {unlucky.name}-control-plane-0 is in ERROR: No valid host was found" in told
        admin.compute.delete_flavor(flavor)
        flavor = admin.compute.create_flavor(name=name, ram=4096, vcpus=2, disk=10)
        unlucky.moyai("up", str(unlucky.folder))
    finally:
        admin.compute.delete_flavor(flavor)
    found = unlucky.objects()
    assert set(found.values()) == {1}, found
    assert [node["node"] for node in unlucky.status()["nodes"]] == ["Ready"]


def write(cluster: Cluster, flavor: str) -> None:
    spec: dict[str, object] = {"cloud": cluster.cloud, "controlPlane": {"flavor": flavor}, "nodePools": []}
    (cluster.folder / "cluster.yaml").write_text(json.dumps({"metadata": {"name": cluster.name}, "spec": spec}))

"""`moyai openstack`: which client runs, on which cloud; every argument is the client's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from requests.utils import should_bypass_proxies

from moyai.cli import cluster, main
from moyai.cli.local_way import go_past_proxies
from moyai.core.paths import Paths
from moyai.lifecycle.record import Record
from moyai.localcloud import env
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig
from moyai.spec.load import dump, parse
from moyai.spec.model import Cluster

SHOW = """#!/bin/sh
printf '%s\\n' "$OS_CLOUD" "$0" "$@"
"""


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    for name in ("OS_CLOUD", "OS_AUTH_URL", "MOYAI_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MOYAI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("MOYAI_CACHE_DIR", str(tmp_path / "cache"))
    client(tmp_path / "bin" / "openstack")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return Paths(tmp_path / "cache", tmp_path / "state")


def client(file: Path) -> None:
    """Prints its cloud, itself and its arguments."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(SHOW)
    file.chmod(0o755)


def moyai(*words: str) -> list[str]:
    """The lines that the client prints. A process of its own, since the client takes its place."""
    code = "import sys; from moyai.cli.main import run; sys.exit(run(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def record(paths: Paths, name: str, cloud: str) -> None:
    Record.create(paths, name, spec=dump(parse(f"metadata: {{name: {name}}}\nspec: {{cloud: {cloud}}}")))


def test_every_argument_is_the_clients(paths: Paths) -> None:
    words = ["--help", "server list", "-f", "json", "--os-region-name=x", "--", "-h"]
    assert moyai("openstack", *words)[2:] == words


@pytest.mark.parametrize(
    "words", [["--os-cloud", "mine", "server", "list"], ["--os-cloud=mine"], ["--os-auth-url", "http://x"]]
)
def test_a_cloud_that_is_named_is_left_to_the_client(words: list[str], paths: Paths) -> None:
    record(paths, "demo", "elsewhere")
    assert moyai("openstack", *words)[0] == ""


def test_the_environments_cloud_goes_before_the_clusters(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    record(paths, "demo", "elsewhere")
    monkeypatch.setenv("OS_CLOUD", "chosen")
    assert moyai("openstack", "server", "list")[0] == "chosen"
    monkeypatch.delenv("OS_CLOUD")
    monkeypatch.setenv("OS_AUTH_URL", "http://x")
    assert moyai("openstack", "server", "list")[0] == ""


def test_the_clusters_cloud_goes_before_the_local_one(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    assert moyai("openstack")[0] == "moyai"
    local = paths.cloud("here")
    local.mkdir(parents=True)
    (local / "cloud.json").write_text(LocalCloudConfig("here").to_json())
    assert moyai("openstack")[0] == "here"
    record(paths, "demo", "elsewhere")
    assert moyai("openstack")[0] == "elsewhere"
    record(paths, "other", "third")
    monkeypatch.setenv("MOYAI_CLUSTER", "other")
    assert moyai("openstack")[0] == "third"


def test_several_clouds_are_a_question(paths: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    record(paths, "demo", "one")
    record(paths, "other", "two")
    assert main.run(["openstack", "server", "list"]) == 2
    assert capsys.readouterr().err == "moyai: which cloud?: there are one, two; name one with --os-cloud\n"


def test_the_local_clouds_client_goes_before_the_users(paths: Paths) -> None:
    folder = paths.openstack_env / env.env_key(env.lock_text())
    client(folder / "bin" / "openstack")
    (folder / ".complete").write_text("")
    assert moyai("openstack")[1] == str(folder / "bin" / "openstack")


def test_without_any_client_one_line_says_how_to_get_one(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main.run(["openstack", "server", "list"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("moyai: there is no OpenStack client on this machine: `pipx install python-openstackclient`")
    assert shown.count("\n") == 1


# ---- the environment's cloud, for specs


@pytest.mark.parametrize(
    ("environ", "cloud"),
    [
        ({}, ""),
        ({"OS_CLOUD": "a"}, "a"),
        ({"OS_CLOUD": "a", "OS_AUTH_URL": "http://x"}, "a"),
        # openstacksdk's name for a cloud of variables
        ({"OS_AUTH_URL": "http://x"}, "envvars"),
    ],
)
def test_the_environment_chooses_a_cloud_as_for_every_client(environ: dict[str, str], cloud: str) -> None:
    assert cluster.chosen_cloud(environ) == cloud


def test_a_spec_that_names_a_cloud_is_not_overruled(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cloud_of(text: str) -> str:
        (tmp_path / "spec.yaml").write_text(text)
        loaded: Cluster = cluster.load_spec(tmp_path / "spec.yaml").cluster
        return loaded.spec.cloud

    monkeypatch.setenv("OS_AUTH_URL", "http://x")
    assert cloud_of("spec: {cloud: mine}") == "mine"
    assert cloud_of("spec: {}") == "envvars"


# ---- past proxies


@pytest.mark.parametrize("already", ["", "example.org"])
def test_a_local_cloud_is_reached_past_the_environments_proxies(already: str, paths: Paths) -> None:
    config = LocalCloudConfig("here", "10.200.0.0/24", "10.201.0.0/24")
    paths.cloud("here").mkdir(parents=True)
    CloudPaths(paths.cloud("here")).record.write_text(config.to_json())
    environ = {"HTTP_PROXY": "http://proxy:1", "NO_PROXY": already}
    for _ in range(2):
        go_past_proxies("here", paths, environ=environ)
    assert environ["no_proxy"] == environ["NO_PROXY"] == ",".join(filter(None, [already, "10.200.0.0/24", "10.201.0.0/24"]))
    for address in (config.auth_url, "https://10.201.0.7:6443"):
        assert should_bypass_proxies(address, no_proxy=environ["NO_PROXY"])


def test_the_proxies_of_another_cloud_stay_as_they_are(paths: Paths) -> None:
    environ = {"HTTP_PROXY": "http://proxy:1"}
    go_past_proxies("mine", paths, environ=environ)
    assert environ == {"HTTP_PROXY": "http://proxy:1"}

"""An ordinary user with an installed wheel runs every command: what needs root, or what is not there, is one line with its
exit code; nothing is written outside of the user's home.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from moyai.cli.main import COMMANDS
from moyai.core.paths import Paths
from moyai.lifecycle.record import Record
from moyai.spec.load import dump, parse
from tests.ordinary_user import Ordinary, installed_wheel, ordinary_user


@pytest.fixture(scope="module")
def installed() -> Generator[Path]:
    with installed_wheel() as folder:
        yield folder


@pytest.fixture
def user(installed: Path) -> Generator[Ordinary]:
    with ordinary_user(installed) as user:
        yield user


@pytest.fixture
def cluster(user: Ordinary) -> Record:
    """A cluster that the user has a record of, on a cloud that does not answer."""
    state = user.home / ".local/state/moyai"
    made = Record.create(
        Paths(user.home / ".cache/moyai", state), "demo", spec=dump(parse("metadata: {name: demo}\nspec: {cloud: mine}"))
    )
    auth = {"auth_url": "http://127.0.0.1:1/v3", "username": "u", "password": "p", "project_id": "p"}
    clouds = user.home / ".config/openstack/clouds.yaml"
    clouds.parent.mkdir(parents=True)
    clouds.write_text(json.dumps({"clouds": {"mine": {"auth": auth}}}))
    (made.folder / "kubeconfig").write_text("apiVersion: v1\nclusters: []\n")
    user.own()
    return made


def test_every_command_has_help_and_nothing_is_written(user: Ordinary) -> None:
    for name in COMMANDS:
        if name in ("kubectl", "openstack"):
            continue  # `--help` is the program's
        assert user.run(name, "--help").code == 0, name
    assert user.run("--help").out.count("\n  ") > 10
    assert list(user.home.rglob("*")) == [user.bin]


@pytest.mark.parametrize(
    "words",
    [
        ("up",), ("prepare",), ("cloud", "up"), ("cloud", "down"), ("cloud", "status"), ("cloud", "restart", "nova"),
    ],
)  # fmt: skip
def test_what_runs_the_local_cloud_needs_root_and_says_so(words: tuple[str, ...], user: Ordinary) -> None:
    answer = user.run(*words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "moyai: the local cloud needs root (namespaces, bridges, loop devices): run it with sudo\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("status",), 2),
        (("kubeconfig",), 2),
        (("kubectl", "get", "nodes"), 2),
        (("ssh", "node"), 2),
        (("explain", "pod"), 2),
        (("down", "--yes"), 2),
        (("cloud", "logs"), 1),
        (("openstack", "server", "list"), 1),
        (("image", "list"), 2),
        (("plan",), 1),
    ],
)
def test_without_a_cluster_each_command_is_one_line(words: tuple[str, ...], code: int, user: Ordinary) -> None:
    answer = user.run(*words)
    assert (answer.code, answer.out) == (code, "")
    assert answer.err.startswith("moyai: ")
    assert answer.err.count("\n") == 1


@pytest.mark.usefixtures("cluster")
def test_with_a_cluster_whose_cloud_does_not_answer_each_command_is_one_line_or_says_so(user: Ordinary) -> None:
    (user.home / "spec.yaml").write_text("metadata: {name: demo}\nspec: {cloud: mine}")
    assert user.run("kubeconfig").out.startswith("apiVersion")
    for words in (("plan", "spec.yaml"), ("up", "spec.yaml"), ("down", "--yes")):
        answer = user.run(*words)
        assert answer.code == 1, words
        assert "the cloud mine cannot be reached (Connection refused)" in answer.err.splitlines()[-1]
    status = user.run("status")
    assert status.code == 1
    assert "the cloud cannot be asked" in status.out
    assert user.run("toolchain").code == 0
    assert user.run("ssh", "demo-workers-0").err.count("\n") == 1


@pytest.mark.usefixtures("cluster")
def test_kubectl_is_the_users_own_or_one_line_and_nothing_is_built(user: Ordinary) -> None:
    missing = user.run("kubectl", "get", "nodes")
    assert missing.code == 1
    assert "kubectl cannot be fetched" in missing.err.splitlines()[-1]
    version = json.dumps({"clientVersion": {"gitVersion": "v1.37.0"}})
    user.program("kubectl", f"#!/bin/sh\n[ $1 = version ] && echo '{version}' || echo $KUBECONFIG $@\n")
    found = user.run("kubectl", "get", "nodes", "--all")
    assert found.out == f"{user.home}/.local/state/moyai/clusters/demo/kubeconfig get nodes --all\n"
    assert not (user.home / ".cache/moyai/go").exists()


@pytest.mark.usefixtures("cluster")
def test_openstack_is_the_users_own_on_the_clusters_cloud(user: Ordinary) -> None:
    user.program("openstack", '#!/bin/sh\necho "$OS_CLOUD: $@"\n')
    assert user.run("openstack", "server", "list").out == "mine: server list\n"


def test_a_clouds_yaml_that_may_not_be_read_is_passed_over(user: Ordinary) -> None:
    auth = {"OS_AUTH_URL": "http://127.0.0.1:1/v3", "OS_USERNAME": "u", "OS_PASSWORD": "p", "OS_PROJECT_ID": "p"}
    hidden = str(user.secret / "clouds.yaml")
    answer = user.run("plan", OS_CLIENT_CONFIG_FILE=hidden, **auth)
    assert "the cloud envvars cannot be reached" in answer.err
    assert "Permission denied" not in answer.err


def test_without_a_home_in_the_environment_nothing_is_looked_for_in_roots(user: Ordinary) -> None:
    answer = user.run("status", HOME="")
    assert answer.code in (1, 2)
    assert "/root" not in answer.err


@pytest.mark.usefixtures("cluster")
def test_a_home_of_somebody_else_is_one_line(user: Ordinary) -> None:
    user.secret.chmod(0o700)
    answer = user.run("kubectl", "get", "nodes", HOME=str(user.secret))
    assert answer.code in (1, 2)
    assert answer.err.count("\n") == 1

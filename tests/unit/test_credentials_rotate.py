"""The credentials of the parts inside a cluster are replaced: the new ones are used before the old ones go, a kill or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moyai.ccm import manifests as ccm
from moyai.cloud.memory import Killed
from moyai.core.errors import MoyaiError, Terminal, UsageError
from moyai.kube.resources import DEPLOYMENTS, SECRETS
from moyai.lifecycle import execute
from moyai.lifecycle.status import read, read_credentials
from moyai.plan.rotation import Rotated
from tests.unit.rotation_world import ONE, RotationWorld
from tests.unit.test_lifecycle_prefixes import Cut


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RotationWorld:
    return RotationWorld(tmp_path, monkeypatch, spec=ONE)


def ids(world: RotationWorld) -> set[str]:
    return {one.id for one in world.store.credentials.values()}


def secrets_of(world: RotationWorld) -> list[str]:
    return [ccm.NAME, world.cloud.kind.volume_names.secret]


def logged_in(world: RotationWorld, where: str = "") -> None:
    """Each part has a credential that exists, whose secret is the right one."""
    there = {one.id: one.secret for one in world.store.credentials.values()}
    for secret in secrets_of(world):
        lines = dict(line.split("=") for line in world.cloud_conf(secret).splitlines() if "=" in line)
        assert there.get(lines["id"]) == lines["secret"], where


def test_new_credentials_are_used_and_the_old_ones_are_gone(world: RotationWorld) -> None:
    before = ids(world)
    world.rotate(Rotated.CREDENTIALS)
    assert not before & ids(world)
    assert len(ids(world)) == 2
    logged_in(world)
    names = world.cloud.kind.volume_names
    for deployment in (ccm.NAME, names.controller):
        template = world.kube().store.find(DEPLOYMENTS, deployment, namespace="kube-system")["spec"]["template"]
        assert template["metadata"]["annotations"]["moyai.dev/credential"] in ids(world)
    assert not [name for name in world.record().secrets() if name.endswith("-next")]
    assert not world.up(ONE).changed


def test_the_new_ones_are_the_cluster_s_own_and_go_with_it(world: RotationWorld) -> None:
    world.rotate(Rotated.CREDENTIALS)
    world.clock.sleep(60)
    world.rotate(Rotated.CREDENTIALS)
    assert world.down().left == ()
    assert not world.store.credentials


def test_their_owner_is_in_the_status_and_another_users_are_reported(world: RotationWorld) -> None:
    found = read(world.record(), world.cloud, clock=world.clock)
    assert {one.owner for one in found.credentials} == {"tester"}
    gone = next(iter(world.store.credentials))
    del world.store.credentials[gone]
    shown, problems = read_credentials(world.record(), world.cloud, now=world.clock.now())
    assert len(shown) == 1
    assert f"credential {gone} is not yours" in problems[0]
    # a colleague makes new ones
    world.rotate(Rotated.CREDENTIALS)
    logged_in(world)
    assert read_credentials(world.record(), world.cloud, now=world.clock.now())[1] == ()


def test_a_secret_that_somebody_changed_is_left_alone(world: RotationWorld) -> None:
    found = world.kube().store.find(SECRETS, ccm.NAME, namespace="kube-system")
    world.kube().store.put(SECRETS, {**found, "data": {"cloud.conf": ""}})
    before = ids(world)
    with pytest.raises(Terminal, match=r"has neither the credential on record nor the new one: somebody has changed it"):
        world.rotate(Rotated.CREDENTIALS)
    assert before <= ids(world)


def test_a_login_that_makes_no_credentials_changes_nothing(world: RotationWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    login = replace(world.cloud.credentials.own_login(), may_issue=False, refusal="the cloud's policy refuses it")
    monkeypatch.setattr(world.cloud.credentials, "own_login", lambda: login)
    with pytest.raises(UsageError, match="your login may not make credentials: the cloud's policy refuses it"):
        world.rotate(Rotated.CREDENTIALS)
    assert world.record().rotation is None


@pytest.mark.exhaustive
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_step_it_goes_on(after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    table, number, killed = execute.table, 0, True
    while killed:
        world, killed = RotationWorld(tmp_path / str(number), monkeypatch, spec=ONE), False
        before = ids(world)
        with monkeypatch.context() as patch:
            patch.setattr(execute, "table", Cut(number, after=after).wrapped(table))
            try:
                world.rotate(Rotated.CREDENTIALS)
            except Killed:
                killed = True
                logged_in(world, f"cut at {number}")
        world.clock.sleep(60)
        if killed:
            world.rotate(Rotated.CREDENTIALS)
        logged_in(world, f"cut at {number}")
        assert not before & ids(world)
        assert len(ids(world)) == 2
        number += 1
    assert number > 5


@pytest.mark.exhaustive
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_change_of_the_cloud_it_goes_on(after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a credential was made and its secret did not come."""
    number, killed = 1, True
    while killed:
        world, killed = RotationWorld(tmp_path / str(number), monkeypatch, spec=ONE), False
        world.mortal.kill_at(number, after=after)
        try:
            world.rotate(Rotated.CREDENTIALS)
        except (Killed, MoyaiError):
            killed = True
        world.mortal.revive()
        if killed:
            world.rotate(Rotated.CREDENTIALS)
        logged_in(world, f"killed at {number}")
        assert len(ids(world)) == 2
        number += 1
    assert number > 4

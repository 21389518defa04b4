"""How many copies controllers have when the number of control planes changes: two at most, and one works at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from moyai.bootstrap.addons import addons
from moyai.kube.objects import parse_deployment
from moyai.kube.resources import DEPLOYMENTS
from moyai.plan import text
from moyai.plan.addons import copies
from moyai.spec.load import parse
from tests.unit.lifecycle_world import World
from tests.unit.test_plan_cluster import NAMES
from tests.unit.test_plan_control_planes import FIVE, ONE, ONE_OF_MORE, THREE

CONTROLLERS = ("moyai-cloud-controller-manager", "csi-memory-controllerplugin", "snapshot-controller")


def found(world: World) -> dict[str, int]:
    deployments = map(parse_deployment, world.kube().store.all(DEPLOYMENTS))
    return {one.name: one.wanted for one in deployments if one.name in CONTROLLERS}


@pytest.mark.parametrize(("spec", "number"), [(ONE, 1), (ONE_OF_MORE, 1), (THREE, 2), (FIVE, 2)])
def test_one_works_and_another_takes_over(spec: str, number: int) -> None:
    assert copies(parse(spec).spec) == number


def test_a_cluster_that_grows_gets_second_copies_once_its_nodes_are_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(ONE_OF_MORE)
    assert set(found(world).values()) == {1}
    steps = {str(step.id): {str(one) for one in step.after} for step in world.preview(THREE).steps}
    own = steps["set deployment moyai-cloud-controller-manager"]
    assert "nodes Ready" in own
    assert "set deployment moyai-cloud-controller-manager" in steps["add-ons run"]
    world.up(THREE)
    assert found(world) == dict.fromkeys(CONTROLLERS, 2)
    assert not world.preview(THREE).steps


def test_a_cluster_that_shrinks_keeps_one_copy_of_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(THREE)
    assert "set the copies of deployment snapshot-controller to 1" in str(text.lines(world.preview(ONE_OF_MORE)))
    world.up(ONE_OF_MORE)
    assert found(world) == dict.fromkeys(CONTROLLERS, 1)
    assert not world.preview(ONE_OF_MORE).steps


def test_copies_that_would_all_work_stay_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(ONE_OF_MORE)
    for one in world.kube().store.all(DEPLOYMENTS):
        for container in one["spec"]["template"]["spec"]["containers"]:
            container["args"] = ["--leader-elect=false"]
    result = world.up(THREE)
    assert set(found(world).values()) == {1}
    (note,) = [note for note in result.notes if "keep one copy" in note]
    assert note.startswith("moyai-cloud-controller-manager, csi-memory-controllerplugin, snapshot-controller of kube-system")


def test_what_has_copies_is_an_add_on_that_is_waited_for() -> None:
    for addon in addons(NAMES, spec=parse("").spec):
        assert set(addon.copied) <= set(addon.deployments)

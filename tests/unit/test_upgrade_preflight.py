"""What would break an upgrade is one line, before anything is changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from moyai.cloud.model import Image, Power
from moyai.core.errors import UsageError
from moyai.kube.resources import DISRUPTION_BUDGETS, NODES
from moyai.lifecycle.cluster_use import old_apis
from moyai.plan.cluster.preflight import OldApi
from tests.unit.lifecycle_world import World
from tests.unit.test_upgrade import NEXT, OLD, SPEC, record, run, versions

METRICS = """\
# HELP apiserver_requested_deprecated_apis [STABLE] Gauge of deprecated APIs that have been requested
# TYPE apiserver_requested_deprecated_apis gauge
apiserver_requested_deprecated_apis{group="flowcontrol.apiserver.k8s.io",removed_release="1.38",resource="flowschemas",\
subresource="",version="v1beta3"} 1
apiserver_requested_deprecated_apis{group="",removed_release="",resource="componentstatuses",subresource="",version="v1"} 1
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",verb="GET"} 4
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    world.store.images.put(Image(NEXT, f"moyai-node-{NEXT}", "ACTIVE", properties={"moyai_kubernetes_version": NEXT}))
    return world


def single(world: World) -> None:
    world.up("spec: {nodePools: [{replicas: 1}]}")


def own_image(world: World) -> None:
    world.store.images.put(Image("own", "own", "ACTIVE"))
    world.up(SPEC.replace("spec: {", "spec: {image: own, "))


def silent(world: World) -> None:
    world.up(SPEC)
    world.kube().mute = True


def dead_node(world: World) -> None:
    world.up(SPEC)
    world.power("quickstart-workers-1", Power.OFF)


def no_room(world: World) -> None:
    world.up(SPEC)
    world.store.limits["cores"] = world.store.used["cores"]


def image_is_gone(world: World) -> None:
    world.up(SPEC)
    world.cloud.images.delete_image("img")


def far_behind(world: World) -> None:
    world.up(SPEC)
    node = world.kube().store.find(NODES, "quickstart-workers-0")
    world.kube().store.put(NODES, {**node, "status": {**node["status"], "nodeInfo": {"kubeletVersion": "v1.34.2"}}})


def strict_budget(world: World) -> None:
    world.up(SPEC)
    status = {"desiredHealthy": 2, "expectedPods": 2, "currentHealthy": 2}
    world.kube().store.put(DISRUPTION_BUDGETS, {"metadata": {"namespace": "default", "name": "web"}, "status": status})


def old_api(world: World) -> None:
    world.up(SPEC)
    world.kube().deprecated = METRICS


REFUSED: dict[Callable[[World], None], str] = {
    single: "the API has the address of its only control plane",
    own_image: "spec.image: 'own', should be left out: each version has an image of its own",
    silent: "its API does not answer: `moyai status` says why",
    dead_node: "quickstart-workers-1 is not Ready: `moyai up` mends the cluster first",
    no_room: "are free (cores)",
    image_is_gone: f"moyai-node-{OLD}', cloud moyai has no such image",
    far_behind: "node quickstart-workers-0 has 1.34.2, more than 3 minor versions before 1.38.2",
    strict_budget: "PodDisruptionBudget default/web keeps 2 of 2 pods, so none of them may ever leave its node",
    old_api: "flowschemas of flowcontrol.apiserver.k8s.io/v1beta3 is in use, and 1.38 has it no more",
}


@pytest.mark.parametrize("before", REFUSED, ids=lambda one: one.__name__)
def test_what_is_in_the_way_is_said_before_anything_changes(before: Callable[[World], None], world: World) -> None:
    before(world)
    there, made = world.all_names(), versions(world)
    with pytest.raises(UsageError) as caught:
        run(world, NEXT)
    assert REFUSED[before] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (world.all_names(), versions(world)) == (there, made)
    assert record(world).upgrade is None


def test_a_budget_that_lets_one_pod_go_is_in_nobodys_way(world: World) -> None:
    world.up(SPEC)
    for name, desired, expected in (("web", 1, 2), ("empty", 1, 0)):
        status = {"desiredHealthy": desired, "expectedPods": expected}
        world.kube().store.put(DISRUPTION_BUDGETS, {"metadata": {"namespace": "default", "name": name}, "status": status})
    assert run(world, NEXT).version == NEXT


def test_a_node_of_ones_own_may_say_any_version(world: World) -> None:
    world.up(SPEC)
    node = world.kube().store.find(NODES, "quickstart-workers-0")
    status = {**node["status"], "nodeInfo": {"kubeletVersion": "custom"}}
    world.kube().store.put(NODES, {"metadata": {"name": "own"}, "status": status})
    assert run(world, NEXT).version == NEXT


def test_an_api_that_goes_later_is_in_nobodys_way(world: World) -> None:
    world.up(SPEC)
    world.kube().deprecated = METRICS.replace("1.38", "1.39")
    assert run(world, NEXT).version == NEXT


def test_deprecated_apis_are_read_from_the_metrics() -> None:
    assert list(old_apis(METRICS)) == [OldApi("flowschemas of flowcontrol.apiserver.k8s.io/v1beta3", "1.38")]
    assert not list(old_apis("no metrics at all\n"))

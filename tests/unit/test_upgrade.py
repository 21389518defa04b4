"""A cluster goes from one version of Kubernetes to another: which machines follow when, what stops it, how it is taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.model import Image
from moyai.core.errors import UsageError
from moyai.core.ids import TEMPLATE_KEY
from moyai.core.progress import Reporter
from moyai.kube.resources import CONFIG_MAPS, DAEMON_SETS
from moyai.lifecycle import status, upgrade_state
from moyai.lifecycle import upgrade as upgrading
from moyai.lifecycle.record import Record
from moyai.plan.machine_template import made_with
from moyai.plan.versions import Stage, Wish
from tests.unit.lifecycle_world import World

PLANE = "quickstart-control-plane-0"
SPEC = "spec: {controlPlane: {endpoint: vrrp}, nodePools: [{replicas: 2}]}"
OLD, PATCH, NEXT, LATER = "1.37.1", "1.37.99", "1.38.2", "1.39.0"


class MadeVersions:
    """Versions of the machines that are made, and names of those that go, in order."""

    def __init__(self, world: World) -> None:
        self.made: list[tuple[str, str]] = []
        self.gone: list[str] = []
        world.store.servers.watch(self._server)

    def _server(self, before: Any, after: Any) -> None:
        if before is None:
            self.made.append((after.name, made_with(after.metadata[TEMPLATE_KEY])))
        elif after is None:
            self.gone.append(before.name)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    for version in (PATCH, NEXT, LATER):
        properties = {"moyai_kubernetes_version": version}
        world.store.images.put(Image(version, f"moyai-node-{version}", "ACTIVE", properties=properties))
    world.up(SPEC)
    return world


def run(world: World, to: str = "", **wish: Any) -> upgrading.UpgradeResult:
    return upgrading.upgrade(
        "quickstart",
        world.cloud,
        wish=Wish(to, **wish),
        paths=world.paths,
        reporter=Reporter(clock=world.clock),
        clock=world.clock,
    )


def preview(world: World, to: str = "", **wish: Any) -> upgrading.Preview:
    return upgrading.preview("quickstart", world.cloud, wish=Wish(to, **wish), paths=world.paths, clock=world.clock)


def record(world: World) -> Record:
    found = Record.open(world.paths, "quickstart")
    assert found is not None
    return found


def versions(world: World) -> dict[str, str]:
    return {one.name: made_with(one.metadata[TEMPLATE_KEY]) for one in world.store.servers}


def emulated(world: World) -> set[str]:
    templates = [one.metadata[TEMPLATE_KEY] for one in world.store.servers if "control-plane" in one.name]
    return {part.partition("=")[2] for one in templates for part in one.split(",") if part.startswith("emulates=")}


def test_control_planes_first_then_pools(world: World) -> None:
    watched = MadeVersions(world)
    result = run(world, PATCH)
    assert (result.version, result.changed, result.paused) == (PATCH, True, False)
    assert [one for one, _ in watched.made] == ["quickstart-control-plane-1", "quickstart-workers-2", "quickstart-workers-0"]
    assert watched.gone == [PLANE, "quickstart-workers-0", "quickstart-workers-1"]
    assert set(versions(world).values()) == {PATCH}
    assert world.kube().etcd.broken == []
    kept = record(world)
    assert kept.upgrade
    assert kept.upgrade.stage is Stage.SOAKING
    # nothing is left to do, for neither command
    assert not run(world).changed
    assert not world.up(SPEC).changed


def proxy(world: World) -> tuple[str, str]:
    found = world.kube().store.find(DAEMON_SETS, "kube-proxy", namespace="kube-system")["spec"]
    return found["template"]["spec"]["containers"][0]["image"], found.get("updateStrategy", {}).get("type", "")


def kubeadm(world: World) -> str:
    found = world.kube().store.find(CONFIG_MAPS, "kubeadm-config", namespace="kube-system")
    return str(found["data"]["ClusterConfiguration"])


def test_each_node_runs_the_kube_proxy_that_it_brings_along(world: World) -> None:
    seen: list[tuple[str, str]] = []
    world.store.servers.watch(lambda before, _after: seen.append(proxy(world)) if before is None else None)
    run(world, PATCH)
    # before the first new node is there; pods that run stay, since their nodes do not have this image
    assert set(seen) == {("registry.moyai.dev/kube-proxy:node", "OnDelete")}
    assert proxy(world) == ("registry.moyai.dev/kube-proxy:node", "RollingUpdate")
    assert kubeadm(world) == f"kind: ClusterConfiguration\nkubernetesVersion: v{PATCH}\n"


def test_on_the_way_back_kube_proxy_has_one_version_again(world: World) -> None:
    def ask(before: Any, after: Any) -> None:
        if before is not None and after is None:
            upgrade_state.request_pause(record(world))

    world.store.servers.watch(ask)
    assert run(world, PATCH).paused
    run(world, back=True)
    run(world)
    assert proxy(world) == (f"registry.k8s.io/kube-proxy:v{OLD}", "RollingUpdate")
    assert f"v{OLD}" in kubeadm(world)


def test_the_plan_names_all_machines_and_changes_nothing(world: World) -> None:
    before = world.all_names()
    found = preview(world, PATCH)
    assert [(one.node, one.why, one.now) for one in found.plan.replacements] == [
        (PLANE, f"Kubernetes {OLD} → {PATCH}", True),
        ("quickstart-workers-0", f"Kubernetes {OLD} → {PATCH}", False),
        ("quickstart-workers-1", f"Kubernetes {OLD} → {PATCH}", False),
    ]
    assert found.links == (PATCH,)
    assert world.all_names() == before
    assert record(world).upgrade is None


def test_a_later_minor_is_reached_through_those_between(world: World) -> None:
    watched = MadeVersions(world)
    assert run(world, LATER).version == LATER
    made = [version for _, version in watched.made]
    assert made == [NEXT] * 3 + [LATER] * 3
    assert emulated(world) == {"1.38"}


def test_new_control_planes_behave_as_the_old_ones_until_the_upgrade_is_finalized(world: World) -> None:
    run(world, NEXT)
    assert emulated(world) == {"1.37"}
    workers = {one.id for one in world.store.servers if "workers" in one.name}
    result = run(world, final=True)
    assert (result.version, result.upgrade, result.changed) == (NEXT, None, True)
    assert emulated(world) == {""}
    assert workers == {one.id for one in world.store.servers if "workers" in one.name}
    with pytest.raises(UsageError, match="there is no upgrade to take back"):
        run(world, back=True)


def test_an_upgrade_of_a_patch_is_finalized_without_a_new_machine(world: World) -> None:
    run(world, PATCH)
    before = versions(world)
    result = run(world, final=True)
    assert (result.version, result.upgrade, result.changed) == (PATCH, None, False)
    assert versions(world) == before


def test_it_finalizes_itself_after_its_soak_time(world: World) -> None:
    run(world, NEXT, soak_hours=24.0)
    assert not run(world).changed
    world.clock.sleep(24 * 3600)
    assert run(world).upgrade is None
    assert emulated(world) == {""}


def test_the_soak_time_may_be_set_later(world: World) -> None:
    run(world, NEXT)
    run(world, soak_hours=1.0)
    world.clock.sleep(3600)
    assert run(world).upgrade is None


def test_without_a_soak_time_it_finalizes_at_once(world: World) -> None:
    assert run(world, NEXT, soak_hours=0.0).upgrade is None
    assert emulated(world) == {""}


def test_a_rollback_takes_workers_first(world: World) -> None:
    run(world, NEXT)
    watched = MadeVersions(world)
    result = run(world, back=True)
    assert (result.version, result.upgrade) == (OLD, None)
    assert set(versions(world).values()) == {OLD}
    assert [name.split("-")[1] for name, _ in watched.made] == ["workers", "workers", "control"]
    assert emulated(world) == {""}
    assert not world.up(SPEC).changed


def test_a_pause_stops_after_the_machine_that_is_replaced(world: World) -> None:
    def ask(before: Any, after: Any) -> None:
        if after is not None and "control-plane-1" in after.name:
            upgrade_state.request_pause(record(world))

    world.store.servers.watch(ask)
    result = run(world, PATCH)
    assert (result.paused, result.version) == (True, OLD)
    assert versions(world) == {
        "quickstart-control-plane-1": PATCH,
        "quickstart-workers-0": OLD,
        "quickstart-workers-1": OLD,
    }
    # `up` mends the cluster as it is, and carries no machine further
    assert not world.up(SPEC).changed
    world.cloud.machines.delete_server(next(one.id for one in world.store.servers if "workers-1" in one.name))
    world.store.settle()
    world.up(SPEC)
    assert versions(world)["quickstart-workers-1"] == PATCH
    assert versions(world)["quickstart-workers-0"] == OLD
    assert run(world).version == PATCH
    assert set(versions(world).values()) == {PATCH}


def test_status_says_where_it_stands(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "open_api", world.open_api)

    def said() -> str:
        found = status.read(record(world), world.cloud, clock=world.clock)
        return found.upgrade.text if found.upgrade else ""

    def ask(before: Any, after: Any) -> None:
        if before is None and "control-plane-1" in after.name:
            upgrade_state.request_pause(record(world))

    assert said() == ""
    world.store.servers.watch(ask)
    run(world, NEXT)
    assert said() == (
        "the upgrade from 1.37.1 to 1.38.2 is under way, paused: 2 machines are left (quickstart-workers-0, "
        "quickstart-workers-1); `moyai upgrade` goes on, `moyai upgrade --rollback` takes it back"
    )
    run(world)
    assert said().startswith("upgraded from 1.37.1 to 1.38.2 at 2026-")
    assert "and control planes behave as 1.37: `moyai upgrade --finalize` ends it" in said()
    run(world, final=True)
    assert said() == ""


def test_a_worker_that_dies_while_control_planes_differ_keeps_the_old_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)
    world.store.images.put(Image(PATCH, f"moyai-node-{PATCH}", "ACTIVE"))
    world.up("spec: {controlPlane: {replicas: 3}, nodePools: [{replicas: 1}]}")

    def ask(before: Any, after: Any) -> None:
        if after is not None and "control-plane-3" in after.name:
            upgrade_state.request_pause(record(world))

    world.store.servers.watch(ask)
    assert run(world, PATCH).paused
    world.cloud.machines.delete_server(next(one.id for one in world.store.servers if "workers-0" in one.name))
    world.store.settle()
    world.up("spec: {controlPlane: {replicas: 3}, nodePools: [{replicas: 1}]}")
    found = versions(world)
    assert found["quickstart-workers-0"] == OLD
    assert sorted(found.values()) == [OLD, OLD, OLD, PATCH]
    assert run(world, back=True).version == OLD
    assert set(versions(world).values()) == {OLD}


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"to": "1.36.3"}, "--to 1.36.3: should be later than 1.37.1, which the cluster has"),
        ({"to": OLD}, "--to 1.37.1: the cluster has this version already"),
        (
            {"to": "1.37.2"},
            "--to 1.37.2: there is no node image moyai-node-1.37.2: there are images of 1.37.1, 1.37.99",
        ),
        ({"to": "1.41.0"}, "there is no node image of 1.40"),
        ({"to": "2.0.0"}, "--to 2.0.0: should be a version such as 1.37.1"),
        ({"to": "latest"}, "--to latest: should be a version such as 1.37.1"),
        ({}, "--to: left out, should be a version later than 1.37.1: 1.37.99, 1.38.2, 1.39.0"),
        ({"final": True}, "there is no upgrade to finalize"),
        ({"back": True}, "there is no upgrade to take back"),
    ],
)
def test_what_cannot_be_is_refused(world: World, wish: dict[str, Any], says: str) -> None:
    before = world.all_names()
    with pytest.raises(UsageError) as caught:
        run(world, **wish)
    assert says in str(caught.value)
    assert world.all_names() == before
    assert record(world).upgrade is None


def test_one_upgrade_at_a_time(world: World) -> None:
    run(world, NEXT)
    with pytest.raises(UsageError, match=r"from 1.37.1 to 1.38.2 is soaking.*--finalize"):
        run(world, LATER)
    with pytest.raises(UsageError, match="--pause: no machine"):
        upgrade_state.request_pause(record(world))


@pytest.mark.parametrize(
    ("version", "says"),
    [
        (
            PATCH,
            "spec.kubernetesVersion: '1.37.99', should be '1.37.1', which the cluster has, or be left out: `moyai upgrade",
        ),
        ("1.36.3", "an older version is not for this cluster"),
    ],
)
def test_up_changes_no_version(world: World, version: str, says: str) -> None:
    spec = SPEC.replace("spec: {", f"spec: {{kubernetesVersion: '{version}', ")
    with pytest.raises(UsageError) as caught:
        world.up(spec)
    assert says in str(caught.value)
    assert set(versions(world).values()) == {OLD}


def test_up_does_not_roll_an_upgrade_back(world: World) -> None:
    run(world, NEXT)
    with pytest.raises(UsageError, match=r"should be '1.38.2'.*`moyai upgrade --rollback`"):
        world.up(SPEC.replace("spec: {", f"spec: {{kubernetesVersion: '{OLD}', "))
    assert not world.up(SPEC.replace("spec: {", f"spec: {{kubernetesVersion: '{NEXT}', ")).changed
    assert set(versions(world).values()) == {NEXT}

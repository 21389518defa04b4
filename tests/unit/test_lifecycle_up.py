"""`up` against a cloud in memory: whole, scaled, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moyai.cloud.model import Network, Power
from moyai.core.errors import Retriable, Terminal, UsageError
from moyai.core.ids import CLUSTER_RECORD, UNSEALING_KEY, cluster_tag
from moyai.core.progress import Reporter
from moyai.kube.resources import NODES, SECRETS, STORAGE_CLASSES
from moyai.lifecycle import drain
from moyai.lifecycle import up as building
from moyai.lifecycle.record import Record
from moyai.lifecycle.work import locked
from moyai.plan import keys, text
from moyai.plan import steps as s
from moyai.plan.existing import ROLES
from moyai.plan.steps import RenewToken
from moyai.spec.load import dump, parse
from tests.unit.lifecycle_world import World, whole


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_up_makes_one_of_everything_and_again_nothing(world: World) -> None:
    first = world.up()
    assert first.changed
    assert world.names() == whole()
    assert {cluster_tag(first.uid)} == {
        tag for table in (world.store.networks, world.store.ports, world.store.servers) for item in table for tag in item.tags
    }
    router = next(iter(world.store.routers))
    assert [(route.destination, route.nexthop) for route in router.routes] == [
        ("10.244.0.0/24", "10.8.0.10"),
        ("10.244.1.0/24", "10.8.0.11"),
        ("10.244.2.0/24", "10.8.0.12"),
    ]
    assert all("moyai.key" not in server.metadata for server in world.store.servers)
    changes = world.mortal.changes
    again = world.up()
    assert not again.changed
    assert world.mortal.changes == changes
    assert world.names() == whole()


def test_what_machines_do_not_need_to_boot_is_made_once_they_run(world: World) -> None:
    steps: list[tuple[str, str]] = []
    reporter = Reporter(lambda event: steps.append((event.kind, event.step)), clock=world.clock)
    building.up(parse(""), world.cloud, paths=world.paths, reporter=reporter, clock=world.clock)
    begun = [name for kind, name in steps if kind == "started"]
    booted = steps.index(("finished", s.MACHINES.name))
    late = ("gateway", "interface", "rules control-plane", "rules worker")
    assert {name for name in begun if name in late} == set(late)
    assert all(steps.index(("started", name)) > booted for name in late)


def test_scaling_up_keeps_addresses_and_down_drains(world: World) -> None:
    world.up()
    before = {port.name: port.fixed_ips for port in world.store.ports if port.name}
    world.up("spec: {nodePools: [{replicas: 4}]}")
    now = {port.name: port.fixed_ips for port in world.store.ports if port.name}
    assert before.items() <= now.items()
    assert now["quickstart-workers-3"] == ("10.8.0.14",)
    kube = world.kube()
    kube.pod("web", node="quickstart-workers-3")
    kube.pod("proxy", namespace="kube-system", node="quickstart-workers-3", owner="DaemonSet")
    world.up("spec: {nodePools: [{replicas: 2}]}")
    assert kube.cordoned == ["quickstart-workers-3", "quickstart-workers-2"]
    assert kube.evicted == ["web"]
    assert world.names() == whole()
    router = next(iter(world.store.routers))
    assert len(router.routes) == 3
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    assert set(record.recorded().allocations) == {"quickstart-control-plane-0", "quickstart-workers-0", "quickstart-workers-1"}
    # the free number is used again
    world.up("spec: {nodePools: [{replicas: 2}, {name: big, replicas: 1}]}")
    assert next(p for p in world.store.ports if p.name == "quickstart-big-0").fixed_ips == ("10.8.0.13",)


def test_add_ons_run_once_their_controller_has_counted_the_new_nodes(world: World) -> None:
    world.up()
    world.kube().counted = 0
    world.up("spec: {nodePools: [{replicas: 19}]}")
    assert world.kube().counted == len(world.kube().names(NODES)) == 20


def test_a_cloud_that_fails_for_a_moment_keeps_no_unsealing_key(world: World) -> None:
    world.cloud.faults.fail_next("machines.delete_server_metadata", Retriable("Nova answered 500"), times=2)
    world.up()
    assert not [one for one in world.cloud.machines.servers() if UNSEALING_KEY in one.metadata]


def test_a_drained_node_goes_after_its_disks_and_not_much_later(world: World) -> None:
    world.up()
    kube = world.kube()
    for looks, least, most in ((5, 2.0, 20.0), (10**6, drain.DISKS_TIMEOUT, 2 * drain.DISKS_TIMEOUT + 20.0)):
        kube.mounted = {"quickstart-workers-1": looks}
        began = world.clock.monotonic()
        world.up("spec: {nodePools: [{replicas: 1}]}")
        assert "server quickstart-workers-1" not in world.names()
        assert least <= world.clock.monotonic() - began <= most
        kube.mounted = {}
        world.up()


def test_a_protected_pod_keeps_its_node(world: World) -> None:
    world.up()
    kube = world.kube()
    kube.pod("db", namespace="d", node="quickstart-workers-1")
    kube.protected = {"db"}
    with pytest.raises(Terminal, match=r"node quickstart-workers-1 could not be drained in 180 s.*d/db.*disruption budget"):
        world.up("spec: {nodePools: [{replicas: 1}]}")
    assert world.names() == whole()


def test_late_joiners_get_a_token_of_their_own(world: World) -> None:
    world.up()
    before = world.kube().store.calls["create secrets"]
    world.up("spec: {nodePools: [{replicas: 3}]}")
    assert world.kube().store.calls["create secrets"] == before + 1


def test_nobody_can_join_a_cluster_once_its_nodes_have(world: World) -> None:
    world.up()
    assert world.kube().names(SECRETS) == [CLUSTER_RECORD]
    world.up("spec: {nodePools: [{replicas: 3}]}")
    assert world.kube().names(SECRETS) == [CLUSTER_RECORD]


def test_tokens_of_other_people_stay(world: World) -> None:
    world.up()
    theirs = {"metadata": {"name": "bootstrap-token-theirs", "namespace": "kube-system"}, "data": {"token-id": "dGhlaXJz"}}
    world.kube().store.put(SECRETS, {**theirs, "type": "bootstrap.kubernetes.io/token"})
    world.up("spec: {nodePools: [{replicas: 3}]}")
    assert sorted(world.kube().names(SECRETS)) == ["bootstrap-token-theirs", CLUSTER_RECORD]


@pytest.mark.parametrize("made", ["2026-01-01T00:00:00+00:00", "2199-01-01T00:00:00+00:00"], ids=["long ago", "in the future"])
def test_a_token_that_the_cluster_lacks_is_given_to_no_machine(world: World, made: str) -> None:
    """Whatever the record and the clock say of it."""
    world.up()
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    record.keep_token("abcdef.0123456789abcdef")
    record.keep_secret("token made", made)
    plan = building.preview(parse("spec: {nodePools: [{replicas: 3}]}"), world.cloud, paths=world.paths, clock=world.clock)
    assert any(isinstance(step, RenewToken) for step in plan.steps)


def test_a_server_in_error_is_told_and_replaced(world: World) -> None:
    world.cloud.faults.break_next("machines.create_server", "No valid host was found", name="quickstart-workers-1")
    with pytest.raises(
        Terminal, match=r"server quickstart-workers-1 is in failed: No valid host was found; its console ends with: .*"
    ) as caught:
        world.up()
    assert "\n" not in str(caught.value)
    world.cloud.faults.clear()
    world.up()
    assert world.names() == whole()


def test_a_lost_control_plane_is_not_silently_recreated(world: World) -> None:
    world.up()
    plane = next(s for s in world.store.servers if "control-plane" in s.name)
    world.store.servers.drop(plane.id)
    with pytest.raises(Terminal, match=r"the control plane's machine .* is gone, and with it the cluster's state"):
        world.up()


def test_a_stopped_machine_is_started(world: World) -> None:
    world.up()
    worker = next(s for s in world.store.servers if "workers-0" in s.name)
    world.cloud.machines.stop_server(worker.id)
    world.store.settle()
    assert world.up().changed
    assert all(s.power is Power.RUNNING for s in world.store.servers)


def test_a_changed_reclaim_policy_makes_the_default_class_again(world: World) -> None:
    world.up()
    kube = world.kube()

    def policies() -> list[str]:
        return [one["reclaimPolicy"] for one in kube.store.all(STORAGE_CLASSES)]

    assert world.up("spec: {volumes: {reclaimPolicy: Retain}}").changed
    assert policies() == ["Retain"]
    assert not world.up("spec: {volumes: {reclaimPolicy: Retain}}").changed
    # killed between the two calls: gone, and the spec on record is still the old one
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    record.set_spec(dump(parse("")))
    kube.store.vanish(STORAGE_CLASSES, "csi-memory")
    assert world.up("spec: {volumes: {reclaimPolicy: Retain}}").changed
    assert policies() == ["Retain"]
    # taken away on purpose
    kube.store.vanish(STORAGE_CLASSES, "csi-memory")
    assert not world.up("spec: {volumes: {reclaimPolicy: Retain}}").changed
    assert not policies()


def test_a_cluster_whose_volumes_do_not_come_up_is_up_and_says_so(world: World) -> None:
    world.up()
    kube = world.kube()
    kube.deployment("csi-memory-controllerplugin", runs=False)
    again = world.up()
    assert "claims of volumes must wait" in again.notes[-1]
    assert "csi-memory-controllerplugin is not ready yet" in again.notes[-1]
    kube.deployment("csi-memory-controllerplugin")
    assert not world.up().notes
    kube.deployment("coredns", runs=False)
    with pytest.raises(Terminal, match="coredns is not ready yet"):
        world.up()


def test_a_cluster_from_before_volumes_is_not_waited_for_in_vain(world: World) -> None:
    world.up()
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    record.forget(keys.VOLUMES_CREDENTIAL, keys.secret(keys.VOLUMES_CREDENTIAL))
    again = world.up()
    assert not again.changed
    assert "built without volumes" in again.notes[0]
    assert world.up("spec: {nodePools: [{replicas: 3}]}").changed


def test_a_cluster_of_an_older_moyai_is_carried_on(world: World) -> None:
    """A record of format 1 named its objects by strings."""
    world.up()
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    file = record.folder / "record.json"
    data = json.loads(file.read_text())
    old = {keys.FLOATING_IP: "floating-ip", keys.KEY_PAIR: "key-pair", keys.VOLUMES_CREDENTIAL: "volumes-credential"}
    old |= {keys.CONTROLLERS_CREDENTIAL: "credential", keys.secret(keys.CONTROLLERS_CREDENTIAL): "credential secret"}
    old[keys.secret(keys.VOLUMES_CREDENTIAL)] = "volumes-credential secret"
    old |= {keys.security_group(role): f"group {role}" for role in ROLES}
    objects = {old.get(key, str(key)): {"begun": made.begun, "id": made.id} for key, made in record.objects.items()}
    assert {"network", "port quickstart-workers-0", "server quickstart-control-plane-0", "group worker"} <= set(objects)
    file.write_text(json.dumps({**data, "version": 1, "objects": objects}))
    assert text.lines(building.preview(parse(""), world.cloud, paths=world.paths, clock=world.clock)) == ["nothing to do"]
    again = Record.open(world.paths, "quickstart")
    assert again is not None
    assert again.objects.keys() == record.objects.keys()
    world.up("spec: {nodePools: [{replicas: 1}]}")
    assert not world.down().left
    assert world.all_names() == []


def test_a_record_that_names_unknown_objects_is_refused_in_one_line(world: World) -> None:
    world.up()
    file = world.paths.clusters / "quickstart" / "record.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "objects": [{"kind": "hovercraft", "begun": ""}]}))
    with pytest.raises(Terminal, match=r"record .* it names what only a later version of moyai knows: hovercraft"):
        world.up()


def test_nothing_is_made_when_it_cannot_fit(world: World) -> None:
    cases: list[tuple[Callable[[], None], str]] = [
        (lambda: world.store.limits.update(cores=3), r"4 CPUs are needed and 3 are free \(cores\)"),
        (
            lambda: world.store.limits.update(cores=20, port=4),
            r"5 ports are needed and 4 are free",
        ),
    ]
    for change, message in cases:
        change()
        with pytest.raises(Terminal, match=message):
            world.up()
        assert world.all_names() == []
        assert Record.open(world.paths, "quickstart") is None


def test_a_name_that_a_stranger_has_is_refused(world: World) -> None:
    world.store.networks.put(Network(id="x", name="quickstart-network"))
    with pytest.raises(Terminal, match="is taken in cloud moyai by a network that no cluster owns"):
        world.up()


def test_what_cannot_change_is_refused(world: World) -> None:
    world.up()
    with pytest.raises(UsageError, match=r"spec.network.podCIDR: '10.200.0.0/16', should stay '10.244.0.0/16'"):
        world.up("spec: {network: {podCIDR: 10.200.0.0/16}}")


def test_two_at_once(world: World) -> None:
    with (
        locked(world.paths, "quickstart"),
        pytest.raises(Terminal, match=r"another moyai \(process \d+\) is working on cluster quickstart"),
    ):
        world.up()


def test_a_preview_changes_nothing(world: World) -> None:
    plan = building.preview(parse(""), world.cloud, paths=world.paths, clock=world.clock)
    assert world.mortal.changes == 0
    assert not world.paths.clusters.exists()
    assert text.lines(plan)[0].endswith("create network quickstart-network")

"""Root volumes and groups that keep machines apart: the spec, the plan, a whole `up` and `down` in memory, Nova's own words."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import pytest

from moyai.cloud.capabilities import Capability
from moyai.cloud.memory.memory_cloud import MemoryCloud
from moyai.cloud.model import Flavor, Image, RootDisk, SpreadGroup
from moyai.core.errors import MoyaiError, UsageError
from moyai.plan import text
from moyai.plan.changes import classify
from moyai.plan.cluster import plan_up
from moyai.plan.machine_template import differences, machine_template
from moyai.plan.observed import Observed
from moyai.plan.steps import CreateServer, Delete
from moyai.plan.teardown import Target, plan_down
from moyai.spec.load import dump, parse
from tests.unit.openstack_server import Answer, OpenStackServer, openstack_server
from tests.unit.test_plan_cluster import EMPTY, NEW

_PLANE = "{spec: {controlPlane: {rootVolume: {sizeGiB: 9}}}}"
_HA = "{spec: {controlPlane: {replicas: 3}, nodePools: []}}"
_VOLUMES = "{spec: {controlPlane: {rootVolume: {sizeGiB: 20, type: fast}}, nodePools: [{name: w, rootVolume: {sizeGiB: 10}}]}}"


@pytest.fixture
def played() -> Generator[OpenStackServer]:
    with openstack_server() as server:
        yield server


def _lines(spec: str, observed: Observed = EMPTY) -> list[str]:
    return text.lines(plan_up(parse(spec), observed, recorded=NEW))


def test_several_control_planes_are_kept_apart_and_one_is_not() -> None:
    made = "\n".join(_lines(_HA))
    assert "create server group quickstart-control-plane-0123456789, if possible on different hosts" in made
    steps = plan_up(parse(_HA), EMPTY, recorded=NEW).steps
    spread = [step.spread for step in steps if isinstance(step, CreateServer)]
    assert spread == ["control-plane"] * 3
    assert "server group" not in "\n".join(_lines(""))


def test_a_pool_is_kept_apart_when_that_is_asked_for() -> None:
    made = "\n".join(_lines("{spec: {nodePools: [{name: w, antiAffinity: hard}]}}"))
    assert "create server group quickstart-w-0123456789, always on different hosts" in made
    assert "server group" not in "\n".join(_lines("{spec: {controlPlane: {replicas: 3, antiAffinity: none}, nodePools: []}}"))


def test_a_group_that_exists_is_used_and_keeps_its_rule() -> None:
    has = replace(EMPTY, spread_groups=(SpreadGroup("g", "quickstart-control-plane-0123456789", strict=False),))
    assert "server group" not in "\n".join(_lines(_HA, has))
    strict = _HA.replace("replicas: 3", "replicas: 3, antiAffinity: hard")
    with pytest.raises(UsageError, match="keeps the rule it has"):
        _lines(strict, has)


@pytest.mark.parametrize(
    ("spec", "without", "words"),
    [
        (
            "{spec: {nodePools: [{name: w, antiAffinity: soft}]}}",
            Capability.SPREAD,
            r"nodePools\[0\].antiAffinity: 'soft', should",
        ),
        (
            "{spec: {controlPlane: {rootVolume: {sizeGiB: 9}}}}",
            Capability.ROOT_VOLUMES,
            "controlPlane.rootVolume: should be left",
        ),
    ],
)
def test_a_cloud_without_says_so(spec: str, without: Capability, words: str) -> None:
    with pytest.raises(MoyaiError, match=words):
        _lines(spec, replace(EMPTY, capabilities=EMPTY.capabilities - {without}))


def test_control_planes_without_a_group_are_noted() -> None:
    plan = plan_up(parse(_HA), replace(EMPTY, capabilities=EMPTY.capabilities - {Capability.SPREAD}), recorded=NEW)
    assert any("control planes may share a host" in note for note in plan.notes)
    assert not any(step.spread for step in plan.steps if isinstance(step, CreateServer))


def test_machines_begin_on_volumes() -> None:
    steps = plan_up(parse(_VOLUMES), EMPTY, recorded=NEW).steps
    servers = {step.node.name: step.root for step in steps if isinstance(step, CreateServer)}
    assert servers["quickstart-control-plane-0"] == RootDisk(20, "fast")
    assert servers["quickstart-w-0"] == RootDisk(10)


def test_a_root_holds_its_image() -> None:
    disk = Image("i", "moyai-node-1.37.1", "ACTIVE", min_disk_gib=8)
    flavors = tuple(replace(one, disk_gb=0) for one in EMPTY.flavors)
    with pytest.raises(UsageError, match=r"flavor: 'm1.medium' has no disk, image .* needs 8 GiB"):
        _lines("", replace(EMPTY, images=(disk,), flavors=flavors))
    assert _lines(_VOLUMES, replace(EMPTY, images=(disk,), flavors=flavors))
    with pytest.raises(UsageError, match=r"rootVolume\.sizeGiB: 10, should be at least 16"):
        _lines(_VOLUMES, replace(EMPTY, images=(replace(disk, min_disk_gib=16),)))
    with pytest.raises(UsageError, match="has no such volume type, should be one of slow"):
        _lines(_VOLUMES, replace(EMPTY, volume_types=("slow",)))
    archive = replace(disk, min_disk_gib=0, properties={"moyai_format": "rootfs-tar"})
    with pytest.raises(UsageError, match="is an archive and not a disk"):
        _lines(_VOLUMES, replace(EMPTY, images=(archive,)))
    assert Flavor("f", "f", 1, 512).disk_gb is None


@pytest.mark.parametrize("wrong", ["{sizeGiB: -1}", "{type: fast}", "{sizeGiB: 99999}", "{size: 9}"])
def test_a_wrong_root_volume_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="rootVolume"):
        parse(f"{{spec: {{controlPlane: {{rootVolume: {wrong}}}}}}}")


def test_another_root_volume_replaces_machines_and_a_group_is_for_the_next_ones() -> None:
    old, new = (
        dump(parse("")),
        dump(parse("{spec: {nodePools: [{name: workers, rootVolume: {sizeGiB: 9}, antiAffinity: soft}]}}")),
    )
    found = {change.path: change.kind for change in classify(old, new)}
    assert found == {"spec.nodePools[workers].rootVolume": "rolling", "spec.nodePools[workers].antiAffinity": "live"}
    plane = dump(parse(_PLANE))
    assert [change.kind for change in classify(old, plane)] == ["fixed"]
    for part in (old["spec"]["controlPlane"], *old["spec"]["nodePools"]):
        del part["rootVolume"], part["antiAffinity"]
    assert classify(old, dump(parse(""))) == ()
    # the rule of a pool that had none counts from now on, without a word
    assert [change.kind for change in classify(old, new)] == ["rolling"]


def test_a_machine_says_that_it_was_made_on_a_volume() -> None:
    plain, volume = (
        machine_template(parse(one).spec, pool="workers") for one in ("", _VOLUMES.replace("name: w,", "name: workers,"))
    )
    assert "root=" not in plain
    assert list(differences(plain, volume)) == ["root volume"]
    assert list(differences(volume, plain)) == ["root volume"]
    assert list(differences(volume, volume)) == []


def test_groups_go_with_their_cluster() -> None:
    groups = (
        SpreadGroup("g", "quickstart-w-0123456789", strict=False),
        SpreadGroup("h", "quickstart-w-9876543210", strict=False),
    )
    plan = plan_down(replace(EMPTY, spread_groups=groups), Target("quickstart", "0123456789"))
    assert [step.object_id for step in plan.steps if isinstance(step, Delete)] == ["g"]


def test_the_cloud_in_memory_keeps_what_it_was_told() -> None:
    cloud = MemoryCloud()
    group = cloud.machines.create_spread_group("name", strict=True)
    assert cloud.machines.spread_groups() == [group]
    cloud.machines.delete_spread_group(group.id)
    cloud.machines.delete_spread_group(group.id)
    assert cloud.machines.spread_groups() == []


def test_novas_words(played: OpenStackServer) -> None:
    played.on("POST", "/compute/v2.1/servers", Answer(202, {"server": {"id": "s"}}))
    played.on("POST", "/compute/v2.1/os-server-groups", Answer(200, {"server_group": {"id": "g"}}))
    played.on(
        "GET",
        "/compute/v2.1/os-server-groups",
        {
            "server_groups": [
                {"id": "g", "name": "n", "policies": ["soft-anti-affinity"]},
                {"id": "h", "name": "m", "policies": ["affinity"]},
            ]
        },
    )
    machines = played.cloud().machines
    assert machines.create_spread_group("n", strict=True) == SpreadGroup("g", "n", strict=True)
    assert played.made("POST", "/compute/v2.1/os-server-groups")[0].json == {
        "server_group": {"name": "n", "policies": ["anti-affinity"]}
    }
    assert machines.spread_groups() == [SpreadGroup("g", "n", strict=False)]
    for root, group in ((RootDisk(20), "g"), (RootDisk(20, "fast"), ""), (None, "")):
        machines.create_server(
            name="n", image_id="i", flavor_id="f", port_ids=["p"], user_data="", metadata={}, tags=[], root=root, group_id=group
        )
    plain, typed, none = (one.json for one in played.made("POST", "/compute/v2.1/servers"))
    assert plain["server"]["imageRef"] == ""
    volume = {
        "source_type": "image",
        "uuid": "i",
        "destination_type": "volume",
        "boot_index": 0,
        "volume_size": 20,
        "delete_on_termination": True,
    }
    assert plain["server"]["block_device_mapping_v2"] == [volume]
    assert plain["os:scheduler_hints"] == {"group": "g"}
    assert typed["server"]["block_device_mapping_v2"] == [{**volume, "volume_type": "fast"}]
    assert none["server"]["imageRef"] == "i"
    assert "block_device_mapping_v2" not in none["server"]
    assert "os:scheduler_hints" not in none

"""A cluster on NIFCLOUD from its making to its end, over the wire of the local cloud's front."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from moyai.bootstrap import machine
from moyai.cloud.nifcloud.nifcloud_limits import Terms
from moyai.core.errors import Conflict, MoyaiError, Terminal, UsageError
from moyai.core.ids import cluster_tag
from moyai.lifecycle.record import Record
from moyai.nifcloud_front.store.rows import LanRow
from tests.fakes.nifcloud_front import SECRET
from tests.unit.nifcloud_world import SPEC, Killed, NifcloudWorld


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NifcloudWorld:
    return NifcloudWorld(tmp_path, monkeypatch)


def test_a_cluster_is_made_is_left_alone_and_is_removed_without_a_trace(world: NifcloudWorld) -> None:
    made = world.up()
    assert made.changed
    assert made.nodes == ("nif-control-plane-0", "nif-workers-0")
    machines = world.instances()
    assert {one.description for one in machines} == {f"moyai:{made.uid},nif-:c-0", f"moyai:{made.uid},nif-workers-0"}
    assert world.started == {one.uid for one in machines}
    (pair,) = world.front.pairs(world.cloud.kind.cloud_name(made.uid, "nif-entrance"))
    assert made.api == f"https://{pair['DNSName']}:6443"
    assert [one["InstanceId"] for one in pair["Instances"]] == [one.name for one in machines if ":c-" in one.description]
    assert not world.preview().steps
    again = world.up()
    assert not again.changed
    report = world.down()
    assert not report.left
    assert world.left() == []
    assert Record.open(world.paths, "nif") is None


def test_the_plan_before_anything_is_made_shows_each_part(world: NifcloudWorld) -> None:
    texts = [step.text for step in world.preview().steps]
    for expected in (
        "create network nif-network",
        "create port nif-control-plane-0-public in the external network",
        "create entrance nif-entrance for port 6443",
        "lead the entrance to nif-control-plane-0",
        "send its start to server nif-workers-0",
        "give your credential NIFKEY to the cloud controller manager",
    ):
        assert expected in texts
    assert not any("router" in one or "floating" in one or "unsealing" in one for one in texts)
    assert world.count["RunInstances"] == 0
    assert not [note for note in world.preview().notes if "load balancers" in note]


def test_the_controllers_serve_services_and_know_the_cloud(world: NifcloudWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[str] = []
    whole = machine.user_data.control_plane

    def control_plane(facts: Any, **given: Any) -> str:
        rendered.extend(given["addons"].values())
        return whole(facts, **given)

    monkeypatch.setattr(machine.user_data, "control_plane", control_plane)
    world.up()
    manifests = "\n".join(rendered)
    assert "[LoadBalancer]" not in manifests or "enabled = false" not in manifests
    assert "--cloud-provider=nifcloud" in manifests
    assert "additional-storage.csi.nifcloud.com" in manifests
    assert "csi-snapshotter" not in manifests
    assert "kind: VolumeSnapshotClass" not in manifests


@pytest.mark.parametrize(
    ("section", "more"),
    [
        ("machines", "machines: [{name: tool, flavor: e-small2, networks: [{address: 10.8.0.5}]}]"),
        ("networks", "networks: [{name: lab, cidr: 192.168.50.0/24}]"),
    ],
)
def test_a_spec_with_machines_or_networks_beside_the_cluster_is_refused(world: NifcloudWorld, section: str, more: str) -> None:
    with pytest.raises(UsageError) as caught:
        world.up(f"{SPEC}  {more}\n")
    assert str(caught.value) == f"spec.{section}: should be left out: cloud nifcloud:region=jp-east-1 has no routers"
    assert world.left() == []
    assert Record.open(world.paths, "nif") is None


def test_user_data_is_a_script_that_fits_and_holds_no_secret_of_the_cluster(world: NifcloudWorld) -> None:
    world.up()
    record = Record.open(world.paths, "nif")
    assert record is not None
    secrets = [value for name, value in record.secrets().items() if name != "token made"]
    for one in world.instances():
        assert one.user_data.startswith("#!/bin/sh\n")
        assert (len(one.user_data.encode()) + 2) // 3 * 4 <= 8192
        assert not [value for value in (*secrets, SECRET) if value in one.user_data]


def test_the_plan_shows_what_the_cloud_calls_the_machines(world: NifcloudWorld) -> None:
    uid = world.up().uid
    notes = world.preview().notes
    for node in ("nif-control-plane-0", "nif-workers-0"):
        name = world.cloud.kind.cloud_name(uid, node)
        assert len(name) <= 15
        assert f"node {node} is server {name} in the cloud" in notes


def test_the_firewall_names_ranges_and_lets_nobody_but_control_planes_to_etcd(world: NifcloudWorld) -> None:
    world.up()
    groups = world.front.call("DescribeSecurityGroups")["SecurityGroupInfo"]
    plane = next(one for one in groups if ":c" in one["GroupDescription"])
    opened = [one for one in plane["IpPermissions"] if one["IpProtocol"] == "TCP"]
    assert all(not one.get("Groups") for group in groups for one in group["IpPermissions"])
    assert not [one for one in opened if one["FromPort"] <= 2379 <= int(one.get("ToPort") or one["FromPort"])]


def test_machines_of_an_interrupted_run_get_their_start_from_the_next_one(world: NifcloudWorld) -> None:
    world.silent = True
    with pytest.raises(Terminal, match="to take its start"):
        world.up()
    assert world.started == set()
    before = {one.uid for one in world.instances()}
    world.silent = False
    world.up()
    assert world.started == before == {one.uid for one in world.instances()}
    assert not world.preview().steps


def test_a_worker_more_a_worker_less_and_a_machine_that_is_gone(world: NifcloudWorld) -> None:
    world.up()
    world.up(SPEC.replace("replicas: 1", "replicas: 2"))
    assert len(world.started) == len(world.instances()) == 3
    lost = next(one for one in world.instances() if "workers-1" in one.description)
    world.front.end(lost.name)
    world.up(SPEC.replace("replicas: 1", "replicas: 2"))
    assert len(world.instances()) == 3
    world.up()
    assert len(world.instances()) == 2
    world.down()
    assert world.left() == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(1, 15))
def test_a_run_that_dies_at_any_call_is_carried_on(world: NifcloudWorld, part: int) -> None:
    # a run has some 60 calls, and a removal 50; each part dies somewhere else, every other one after the call's effect
    world.die_at = part * 4 + (0.5 if part % 2 else 0)
    try:
        world.up()
    except BaseException as error:
        if not isinstance(error, Killed | MoyaiError):
            raise
    world.revive()
    world.up()
    assert not world.preview().steps
    assert len(world.instances()) == 2
    assert world.started == {one.uid for one in world.instances()}
    world.die_at = world.calls + part * 3 + (0 if part % 2 else 0.5)
    try:
        world.down()
    except BaseException as error:
        if not isinstance(error, Killed | MoyaiError):
            raise
    world.revive()
    if Record.open(world.paths, "nif") is not None:
        world.down()
    assert world.left() == []


def test_another_load_balancer_of_the_entrances_name_is_not_touched(world: NifcloudWorld) -> None:
    cloud, uid = world.cloud, "0123456789"
    name, tags = cloud.kind.cloud_name(uid, "nif-entrance"), [cluster_tag(uid)]
    for port in (80, 443):
        listener = {"LoadBalancerPort": port, "InstancePort": port, "BalancingType": 1}
        operation = "CreateLoadBalancer" if port == 80 else "RegisterPortWithLoadBalancer"
        world.front.call(operation, LoadBalancerName=name, Listeners=[listener])
    with pytest.raises(Conflict, match="somebody else's"):
        cloud.entrances.entrance(name="nif-entrance", tags=tags)
    with pytest.raises(Conflict, match="somebody else's"):
        cloud.entrances.create_entrance(name="nif-entrance", port=6443, tags=tags)
    assert len(world.front.pairs(name)) == 2


HA = """
metadata: {name: ha}
spec:
  cloud: {nifcloud: {region: jp-east-1}}
  network: {mode: auto}
  controlPlane: {flavor: e-small4, replicas: 3, endpoint: vrrp}
  nodePools: [{name: nodes, flavor: e-small2, replicas: 3}]
"""
ZONES = {"east-11", "east-12", "east-13"}


@pytest.fixture
def spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NifcloudWorld:
    return NifcloudWorld(tmp_path, monkeypatch, others=("east-12", "east-13"), bridge="10.8.0.0/24")


def permissions(group: dict[str, Any]) -> set[str]:
    return {str({**one, "AddDatetime": ""}) for one in group["IpPermissions"]}


def zones_of(world: NifcloudWorld, operation: str, *, key: str) -> list[str]:
    return sorted(one["AvailabilityZone"] for one in world.front.call(operation)[key])


def test_a_cluster_over_three_zones_is_made_and_is_removed_without_a_trace(spread: NifcloudWorld) -> None:
    made = spread.up(HA)
    machines = spread.instances()
    assert {one.zone for one in machines if ":c-" in one.description} == ZONES
    assert {one.zone for one in machines if "nodes" in one.description} == ZONES
    assert zones_of(spread, "NiftyDescribePrivateLans", key="PrivateLanSet") == sorted(ZONES)
    with spread.front.store.transaction() as tx:
        assert len({one.cloud_id for one in tx.all(LanRow)}) == 1, "the bridge joins them"
    assert zones_of(spread, "DescribeSecurityGroups", key="SecurityGroupInfo") == sorted([*ZONES, *ZONES])
    (pair,) = spread.front.pairs(spread.cloud.kind.cloud_name(made.uid, "ha-entrance"))
    assert len(pair["Instances"]) == 3
    assert not spread.preview(HA).steps
    groups = spread.front.call("DescribeSecurityGroups")["SecurityGroupInfo"]
    for role in (":c", "worker"):
        alike = [permissions(one) for one in groups if role in one["GroupDescription"]]
        assert alike[0] == alike[1] == alike[2] != set()
    spread.down("ha")
    assert spread.left() == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(1, 9))
def test_a_run_over_zones_that_dies_at_any_call_is_carried_on(spread: NifcloudWorld, part: int) -> None:
    # private LANs and groups are made in one zone after the other
    spread.die_at = 8 + part * 6 + (0.5 if part % 2 else 0)
    try:
        spread.up(HA)
    except BaseException as error:
        if not isinstance(error, Killed | MoyaiError):
            raise
    spread.revive()
    spread.up(HA)
    assert not spread.preview(HA).steps
    assert len(spread.instances()) == 6
    assert zones_of(spread, "NiftyDescribePrivateLans", key="PrivateLanSet") == sorted(ZONES)
    spread.down("ha")
    assert spread.left() == []


def test_a_zone_more_gets_its_private_lan_and_its_groups(spread: NifcloudWorld) -> None:
    spread.terms = Terms("east-11", whole_region=False)
    spread.revive()
    one = HA.replace("replicas: 3, endpoint: vrrp", "replicas: 1").replace("replicas: 3", "replicas: 1")
    spread.up(one)
    assert {machine.zone for machine in spread.instances()} == {"east-11"}
    spread.terms = Terms("east-11", others=("east-12",), whole_region=False)
    spread.revive()
    spread.up(one.replace("flavor: e-small2, replicas: 1", "flavor: e-small2, replicas: 2"))
    assert {machine.zone for machine in spread.instances()} == {"east-11", "east-12"}
    spread.down("ha")
    assert spread.left() == []


def test_load_balancers_of_services_go_with_a_cluster_whose_api_is_silent(world: NifcloudWorld) -> None:
    uid = world.up().uid
    worker = next(one for one in world.instances() if "workers" in one.description)
    world.front.server("foreign")
    listener = {"LoadBalancerPort": 80, "InstancePort": 30080, "BalancingType": 1}
    place = {"LoadBalancerPort": 80, "InstancePort": 30080}
    for name, member in (("a" * 15, worker.name), ("b" * 15, "foreign")):
        world.front.call("CreateLoadBalancer", LoadBalancerName=name, Listeners=[listener])
        members = [{"InstanceId": member}]
        world.front.call("RegisterInstancesWithLoadBalancer", LoadBalancerName=name, Instances=members, **place)
        world.front.settle()
    world.kubes[uid].mute = True
    report = world.down()
    assert ("load balancer", "a" * 15, "gone") in {(one.kind, one.name, one.outcome) for one in report.entries}
    assert not world.front.pairs("a" * 15)
    assert world.front.pairs("b" * 15)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(6))
def test_an_hour_of_lost_replies_doubles_nothing_and_leaves_nothing(world: NifcloudWorld, seed: int) -> None:
    world.luck, world.losses = random.Random(seed), 0.15
    said: list[str] = []
    for _ in range(20):
        try:
            world.up()
            break
        except MoyaiError as error:
            # the next run goes on
            said.append(str(error))
    assert len(world.instances()) == 2
    assert world.started == {one.uid for one in world.instances()}
    for _ in range(20):
        try:
            if Record.open(world.paths, "nif") is None or not world.down().left:
                break
        except MoyaiError as error:
            said.append(str(error))
    assert not [one for one in said if "\n" in one]
    world.losses = 0.0
    with world.front.store.transaction() as tx:
        made = [one.kind for one in tx.ledger() if one.verb == "made"]
    assert world.left() == []
    assert (made.count("instance"), made.count("lan"), made.count("group"), made.count("balancer")) == (2, 1, 2, 1)

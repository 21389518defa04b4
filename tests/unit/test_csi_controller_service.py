"""The CSI controller service: requests and answers as CSI has them, and the health of volumes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moyai.cloud.model import DiskState
from moyai.core.ids import CLUSTER_TAG
from moyai.csi.controller.rpc import ControllerService
from moyai.csi.proto import csi_pb2 as pb
from moyai.csi.volume_sizes import GIB
from tests.fakes.cloud import add_server, add_volume
from tests.unit.csi_world import UID, WRITER, World, capability, refused

pytestmark = pytest.mark.virtual_time


async def test_the_service_speaks_csi() -> None:
    world = World()
    controller, server = world.controller, add_server(world.raw, "one", zone="az2")
    zone = pb.Topology(segments={"topology.disks.memory.test/zone": "az2"})
    made = await controller.CreateVolume(
        pb.CreateVolumeRequest(
            name="pvc-1",
            capacity_range=pb.CapacityRange(required_bytes=GIB),
            volume_capabilities=[capability()],
            parameters={"csi.storage.k8s.io/pvc/name": "data", "type": "files"},
            accessibility_requirements=pb.TopologyRequirement(requisite=[zone], preferred=[zone]),
        )
    )
    volume_id = made.volume.volume_id
    assert made.volume.accessible_topology[0].segments == zone.segments
    assert world.raw.store.volumes[volume_id].metadata["csi.storage.k8s.io/pvc/name"] == "data"
    told = await controller.ControllerPublishVolume(
        pb.ControllerPublishVolumeRequest(volume_id=volume_id, node_id=server.id, volume_capability=capability())
    )
    assert told.publish_context["DevicePath"].endswith(volume_id[:20])
    listed = await controller.ListVolumes(pb.ListVolumesRequest())
    assert [list(one.status.published_node_ids) for one in listed.entries] == [[server.id]]
    grown = await controller.ControllerExpandVolume(
        pb.ControllerExpandVolumeRequest(volume_id=volume_id, capacity_range=pb.CapacityRange(required_bytes=2 * GIB))
    )
    assert (grown.capacity_bytes, grown.node_expansion_required) == (2 * GIB, True)
    snapshot = await controller.CreateSnapshot(pb.CreateSnapshotRequest(name="s", source_volume_id=volume_id))
    found = await controller.ListSnapshots(pb.ListSnapshotsRequest(snapshot_id=snapshot.snapshot.snapshot_id))
    assert [one.snapshot.ready_to_use for one in found.entries] == [True]
    confirmed = await controller.ValidateVolumeCapabilities(
        pb.ValidateVolumeCapabilitiesRequest(volume_id=volume_id, volume_capabilities=[capability()])
    )
    assert confirmed.HasField("confirmed")
    denied = await controller.ValidateVolumeCapabilities(
        pb.ValidateVolumeCapabilitiesRequest(
            volume_id=volume_id, volume_capabilities=[capability("MULTI_NODE_MULTI_WRITER", block=True)]
        )
    )
    assert not denied.HasField("confirmed")
    assert "one node at a time" in denied.message
    capacity = await controller.GetCapacity(pb.GetCapacityRequest())
    assert capacity.available_capacity == 998 * GIB
    elsewhere = pb.Topology(segments={"topology.disks.memory.test/zone": "nowhere"})
    assert (await controller.GetCapacity(pb.GetCapacityRequest(accessible_topology=elsewhere))).available_capacity == 0


@pytest.mark.parametrize("word", ["ERROR_EXTENDING", "error-of-another-cloud"])
@pytest.mark.parametrize(("state", "reason"), [(DiskState.FAILED, "VolumeFailed"), (DiskState.DEGRADED, "VolumeDegraded")])
async def test_the_reason_of_an_ill_volume_follows_from_its_state_and_not_from_the_clouds_word(
    state: DiskState, reason: str, word: str
) -> None:
    world = World()
    ill = add_volume(world.raw, "a", metadata={CLUSTER_TAG: UID}, state=state)
    world.raw.store.volumes.put(replace(ill, status=word))
    health = await world.controller.ControllerGetVolumeHealth(pb.ControllerGetVolumeHealthRequest(volume_id=ill.id))
    (said,) = health.volume_health.health_statuses
    assert said.reason == reason
    assert word in said.message


async def test_a_broken_volume_is_ill() -> None:
    world = World()
    well = add_volume(world.raw, "a", metadata={CLUSTER_TAG: UID})
    ill = add_volume(world.raw, "b", metadata={CLUSTER_TAG: UID}, state=DiskState.FAILED)
    listed = await world.controller.ControllerListVolumeHealth(pb.ControllerListVolumeHealthRequest())
    assert [one.volume_id for one in listed.entries] == [ill.id]
    health = await world.controller.ControllerGetVolumeHealth(pb.ControllerGetVolumeHealthRequest(volume_id=well.id))
    assert not health.volume_health.health_statuses


OWN, STANDARD = "topology.disks.memory.test/zone", "topology.kubernetes.io/zone"


@pytest.mark.parametrize(
    ("terms", "zone"),
    [
        ([{STANDARD: "az2"}], "az2"),
        ([{OWN: "az2"}], "az2"),
        ([{OWN: "az2", STANDARD: "az2"}], "az2"),
        ([{OWN: "az1", STANDARD: "az2"}, {STANDARD: "az2"}], "az2"),
    ],
)
async def test_a_class_may_name_zones_by_every_key_that_nodes_have(terms: list[dict[str, str]], zone: str) -> None:
    world = World()
    asked = [pb.Topology(segments=one) for one in terms]
    made = await world.controller.CreateVolume(
        pb.CreateVolumeRequest(
            name="pvc-1",
            volume_capabilities=[capability()],
            accessibility_requirements=pb.TopologyRequirement(requisite=asked, preferred=asked),
        )
    )
    # a volume keeps its node affinity for ever: by the key that nodes of every version of the driver have
    assert [dict(one.segments) for one in made.volume.accessible_topology] == [{OWN: zone}]
    capacity = await world.controller.GetCapacity(pb.GetCapacityRequest(accessible_topology=asked[-1]))
    assert capacity.available_capacity > 0


@pytest.mark.parametrize("term", [{"topology.kubernetes.io/region": "r"}, {OWN: "az1", STANDARD: "az2"}])
async def test_a_class_that_names_no_zone_is_refused_instead_of_served_anywhere(term: dict[str, str]) -> None:
    world = World()
    asked = [pb.Topology(segments=term)]
    why = await refused(
        world.controller.CreateVolume(
            pb.CreateVolumeRequest(
                name="pvc-1",
                volume_capabilities=[capability()],
                accessibility_requirements=pb.TopologyRequirement(requisite=asked, preferred=asked),
            )
        )
    )
    assert why.code == "INVALID_ARGUMENT"
    assert f"the keys of this driver are {STANDARD} and {OWN}" in why.message
    assert not world.raw.store.volumes


async def test_a_volume_attributes_class_chooses_the_type() -> None:
    world = World()
    made = await world.controller.CreateVolume(
        pb.CreateVolumeRequest(
            name="pvc-1",
            volume_capabilities=[capability()],
            parameters={"type": "files"},
            mutable_parameters={"type": "files-multiattach"},
        )
    )
    assert world.raw.store.volumes[made.volume.volume_id].type_name == "files-multiattach"

    async def change(volume_id: str = made.volume.volume_id, **parameters: str) -> None:
        request = pb.ControllerModifyVolumeRequest(volume_id=volume_id, mutable_parameters=parameters)
        await world.controller.ControllerModifyVolume(request)

    for _ in range(2):
        await change(type="files")
    assert world.raw.store.volumes[made.volume.volume_id].type_name == "files"
    assert world.raw.calls["disks.change_volume_type"] == 1
    other = await refused(change(type="files", iops="300"))
    assert (other.code, "iops" in other.message) == ("INVALID_ARGUMENT", True)
    unknown = await refused(change(type="gold"))
    assert (unknown.code, "there are files, files-multiattach" in unknown.message) == ("INVALID_ARGUMENT", True)
    assert (await refused(change("none", type="files"))).code == "NOT_FOUND"
    # what the cloud cannot do to a volume in use is in the cloud's words
    server = add_server(world.raw, "one")
    await world.volumes.attach(made.volume.volume_id, server.id, access=WRITER)
    in_use = await refused(change(type="files-multiattach"))
    assert (in_use.code, "only allowed on available volumes" in in_use.message) == ("FAILED_PRECONDITION", True)


async def test_a_type_that_the_cloud_does_not_give_is_told_with_its_reason() -> None:
    world = World()
    volume = add_volume(world.raw, "data")
    world.raw.faults.break_next("disks.change_volume_type", "No valid back end")
    why = await refused(world.volumes.change_type(volume.id, "files-multiattach"))
    assert (why.code, "No valid back end" in why.message) == ("INTERNAL", True)
    await world.volumes.change_type(volume.id, "files-multiattach")


async def test_where_no_link_follows_from_the_volume_the_clouds_own_word_is_published() -> None:
    world = World()
    server, volume = add_server(world.raw, "one"), add_volume(world.raw, "v")
    controller = ControllerService(world.cloud, world.volumes, snapshots=world.snapshots, links=lambda _volume, _device: ())
    told = await controller.ControllerPublishVolume(
        pb.ControllerPublishVolumeRequest(volume_id=volume.id, node_id=server.id, volume_capability=capability())
    )
    (attachment,) = world.raw.disks.volume(volume.id).attachments
    assert attachment.device
    assert told.publish_context["DevicePath"] == attachment.device

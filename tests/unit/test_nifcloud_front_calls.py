"""The front's calls and works over a cloud in memory, by the SDK's own bytes."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from moyai.nifcloud_front.calls.handlers import HANDLERS
from moyai.nifcloud_front.pace import FaultOrder
from moyai.nifcloud_front.store.rows import PaceRow
from tests.fakes.nifcloud_front import Refused, TestFront
from tests.nifcloud_sdk import NifcloudSdk, sample

SDK = NifcloudSdk()


@pytest.fixture
def front(tmp_path: Path) -> TestFront:
    return TestFront(tmp_path)


def _code(work: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as refused:
        work()
    return refused.value.code


# ---- all operations


@pytest.mark.parametrize("name", sorted(set(SDK.operations()) - set(HANDLERS)))
def test_an_operation_that_is_not_built_says_so(front: TestFront, name: str) -> None:
    arguments = sample(SDK.model.operation_model(name).input_shape, seed=1)
    assert _code(lambda: front.call(name, **arguments)) == "Client.UnsupportedOperation"


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", sorted(HANDLERS))
def test_a_generated_call_is_answered_or_refused_and_never_an_internal_error(front: TestFront, name: str, seed: int) -> None:
    for only_required in (False, True):
        arguments = sample(SDK.model.operation_model(name).input_shape, seed=seed, only_required=only_required)
        found = SDK.understood(name, body=front.raw(name, arguments).body)
        code = found.get("Error", {}).get("Code", "Client.")
        assert code.startswith(("Client.", "Server."))
        assert code != "Server.InternalError"


# ---- instances


def test_a_server_comes_up_after_its_time_and_shows_its_addresses(front: TestFront) -> None:
    made = front.call("RunInstances", InstanceId="web1", ImageId=front.image(), InstanceType="small2")
    assert made["InstancesSet"][0]["InstanceState"] == {"Code": 0, "Name": "pending"}
    began = front.clock.monotonic()
    front.settle()
    assert front.clock.monotonic() - began >= 120
    shown = front.shown("web1")
    assert shown["InstanceState"] == {"Code": 16, "Name": "running"}
    assert shown["InstanceUniqueId"].startswith("i-")
    assert shown["Placement"]["AvailabilityZone"] == "east-11"
    assert shown["IpAddress"].startswith("198.18.")
    assert shown["PrivateIpAddress"].startswith("172.28.")
    (below,) = front.cloud.machines.servers()
    assert (below.name, below.zone, below.flavor_name) == ("web1", "az1", "m1.small")


def test_one_unknown_server_refuses_the_whole_description(front: TestFront) -> None:
    front.server("web1")
    assert (
        _code(lambda: front.call("DescribeInstances", InstanceId=["web1", "gone"]))
        == "Client.InvalidParameterNotFound.Instance"
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"InstanceId": "web-1"}, "Client.InvalidParameter.Value.InstanceId"),
        ({"InstanceId": "a234567890123456"}, "Client.InvalidParameter.Value.InstanceId"),
        ({"Description": "x" * 41}, "Client.InvalidParameter.Value.Description"),
        ({"ImageId": "1"}, "Client.InvalidParameterNotFound.ImageId"),
        ({"KeyName": "nobody"}, "Client.InvalidParameterNotFound.KeyPair"),
        ({"SecurityGroup": ["nobody"]}, "Client.InvalidParameterNotFound.SecurityGroup"),
        ({"Placement": {"AvailabilityZone": "east-99"}}, "Client.InvalidParameterNotFound.AvailabilityZone"),
        ({"NetworkInterface": [{"NetworkId": "net-nothing"}]}, "Client.InvalidParameterNotFound.NetworkId"),
        ({"MaxCount": 2}, "Client.InvalidParameter.Value.MaxCount"),
        ({"InstanceType": "enormous"}, "Client.InvalidParameter.Value.InstanceType"),
        ({"UserData": {"Content": "x" * 8193, "Encoding": "base64"}}, "Client.InvalidParameter.Format.UserData"),
        ({"UserData": {"Content": "eA==" * 2049, "Encoding": "base64"}}, "Client.InvalidParameter.Format.UserData"),
        (
            {"UserData": {"Content": base64.b64encode(b"x" * 6145).decode(), "Encoding": "base64"}},
            "Client.InvalidParameter.Value.UserData",
        ),
        ({"InstanceId": "web1"}, "Client.InvalidParameterDuplicate.Instance"),
    ],
)
def test_a_server_that_cannot_be_is_refused_and_nothing_is_made(front: TestFront, arguments: dict[str, Any], code: str) -> None:
    front.server("web1")
    assert _code(lambda: front.call("RunInstances", **{"ImageId": front.image(), **arguments})) == code
    front.settle()
    assert len(front.cloud.machines.servers()) == 1


@pytest.mark.parametrize(("content", "script"), [("#!/bin/sh\necho hi", True), ("#cloud-config\n{}", False)])
def test_user_data_of_8192_bytes_runs_as_a_script_or_is_only_written(front: TestFront, content: str, script: bool) -> None:
    from moyai.nifcloud_front.works.instance_work import machine_script

    text = content.ljust(6144, " ")
    front.server("web1", UserData={"Content": base64.b64encode(text.encode()).decode(), "Encoding": "base64"})
    made = machine_script(text)
    assert made.startswith("#!")
    assert (made == text) is script
    assert script or ".niftycloud_user_data" in made


def test_a_server_is_stopped_before_it_is_terminated(front: TestFront) -> None:
    front.server("web1")
    assert _code(lambda: front.call("TerminateInstances", InstanceId=["web1"])) == "Client.Inoperable.Instance.NotStopped"
    moved = front.call("StopInstances", InstanceId=["web1"], Force=True)["InstancesSet"][0]
    assert (moved["PreviousState"]["Name"], moved["CurrentState"]["Name"]) == ("running", "pending")
    assert (
        _code(lambda: front.call("StartInstances", InstanceId=["web1"])) == "Server.ResourceIncorrectState.Instance.Processing"
    )
    front.settle()
    assert front.shown("web1")["InstanceState"] == {"Code": 80, "Name": "stopped"}
    front.call("StartInstances", InstanceId=["web1"])
    front.settle()
    assert front.shown("web1")["InstanceState"]["Name"] == "running"
    front.end("web1")
    assert front.call("DescribeInstances")["ReservationSet"] == []
    assert front.cloud.machines.servers() == []
    assert front.cloud.addresses.floating_ips() == []
    assert [one for one in front.cloud.networks.ports() if one.name.startswith("i-")] == []


def test_a_server_is_protected_unless_its_call_says_otherwise(front: TestFront) -> None:
    front.call("RunInstances", InstanceId="web1", ImageId=front.image())
    front.settle()
    front.call("StopInstances", InstanceId=["web1"])
    front.settle()
    assert (
        _code(lambda: front.call("TerminateInstances", InstanceId=["web1"]))
        == "Client.Inoperable.Instance.DisableApiTermination"
    )
    front.call("ModifyInstanceAttribute", InstanceId="web1", Attribute="disableApiTermination", Value="false")
    front.call("TerminateInstances", InstanceId=["web1"])
    front.settle()
    assert front.call("DescribeInstances")["ReservationSet"] == []


def test_a_renamed_server_keeps_its_unique_id_and_its_machine(front: TestFront) -> None:
    before = front.server("web1")
    front.call("ModifyInstanceAttribute", InstanceId="web1", Attribute="instanceName", Value="web2")
    assert front.shown("web2")["InstanceUniqueId"] == before["InstanceUniqueId"]
    assert _code(lambda: front.shown("web1")) == "Client.InvalidParameterNotFound.Instance"


# ---- disks


def test_a_disk_is_born_on_a_server_and_moves_to_another(front: TestFront) -> None:
    front.server("web1")
    front.server("web2")
    made = front.call("CreateVolume", VolumeId="data", Size=1, InstanceId="web1", DiskType="6", Description="pvc-1")
    assert (made["Size"], made["Status"]) == (100, "creating")
    assert (
        _code(lambda: front.call("DetachVolume", VolumeId="data", Agreement=True))
        == "Server.ResourceIncorrectState.Volume.Processing"
    )
    front.settle()
    shown = front.disk("data")
    assert (shown["Status"], shown["Size"], shown["DiskType"]) == ("in-use", "100", "Standard Flash Storage A")
    assert shown["AttachmentSet"][0]["Status"] == "attached"
    devices = front.call("DescribeInstanceAttribute", InstanceId="web1", Attribute="blockDeviceMapping")
    assert devices["BlockDeviceMapping"][0]["DeviceName"] == "SCSI (0:1)"
    assert "DeviceName" not in front.shown("web1")["BlockDeviceMapping"][0]
    assert (
        _code(lambda: front.call("AttachVolume", VolumeId="data", InstanceId="web2"))
        == "Server.Inoperable.Volume.AlreadyAttached"
    )
    assert _code(lambda: front.call("DetachVolume", VolumeId="data")) == "Client.Inoperable.Volume.AgreementRequired"
    front.call("DetachVolume", VolumeId="data", InstanceId="web1", Agreement=True)
    front.settle()
    assert (front.disk("data")["Status"], front.disk("data")["AttachmentSet"]) == ("available", [])
    assert _code(lambda: front.call("ExtendVolumeSize", VolumeId="data")) == "Client.Inoperable.Volume.DetachedFromInstance"
    front.call("AttachVolume", VolumeId="data", InstanceId="web2")
    front.settle()
    front.call("ExtendVolumeSize", VolumeId="data")
    assert front.disk("data")["AttachmentSet"][0]["Status"] == "attaching"
    front.settle()
    assert front.disk("data")["Size"] == "200"
    assert _code(lambda: front.call("DeleteVolume", VolumeId="data")) == "Client.Inoperable.Volume.AttachedToInstance"
    front.end("web2")
    assert front.disk("data")["Status"] == "available"
    front.call("DeleteVolume", VolumeId="data")
    front.settle()
    assert _code(lambda: front.disk("data")) == "Client.InvalidParameterNotFound.Volume"
    assert front.cloud.disks.volumes() == []


@pytest.mark.parametrize("size", [0, 41, 150, 4100, -1])
def test_sizes_are_steps_of_100(front: TestFront, size: int) -> None:
    front.server("web1")
    assert _code(lambda: front.call("CreateVolume", Size=size, InstanceId="web1")) == "Client.InvalidParameter.Value.Size"


def test_a_server_takes_14_disks(front: TestFront) -> None:
    front.server("web1")
    for number in range(14):
        front.call("CreateVolume", VolumeId=f"disk{number}", Size=1, InstanceId="web1")
    assert _code(lambda: front.call("CreateVolume", Size=1, InstanceId="web1")) == "Client.ResourceLimitExceeded.Volume"
    front.settle()
    devices = front.call("DescribeInstanceAttribute", InstanceId="web1", Attribute="blockDeviceMapping")["BlockDeviceMapping"]
    assert [one["DeviceName"] for one in devices] == [f"SCSI (0:{slot})" for slot in range(1, 15)]


# ---- keys, places


def _line(key: Any) -> str:
    return base64.b64encode(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)).decode()


def test_an_rsa_key_pair_is_imported_and_put_on_servers(front: TestFront) -> None:
    rsa_key = rsa.generate_private_key(65537, 2048)
    made = front.call("ImportKeyPair", KeyName="operator", PublicKeyMaterial=_line(rsa_key))
    assert made["KeyFingerprint"].count(":") == 15
    front.server("web1", KeyName="operator")
    assert front.call("DescribeKeyPairs", KeyName=["operator"])["KeySet"][0]["InstancesSet"][0]["InstanceId"] == "web1"
    front.call("DeleteKeyPair", KeyName="operator")
    front.settle()
    assert front.cloud.machines.keypairs() == []
    other = _line(ed25519.Ed25519PrivateKey.generate())
    assert (
        _code(lambda: front.call("ImportKeyPair", KeyName="operator", PublicKeyMaterial=other))
        == "Client.InvalidParameter.Value.PublicKeyMaterial"
    )
    unknown = base64.b64encode(b"ssh-foo AAAA").decode()
    assert (
        _code(lambda: front.call("ImportKeyPair", KeyName="operator", PublicKeyMaterial=unknown))
        == "Client.InvalidParameter.Format.PublicKeyMaterial"
    )
    assert (
        _code(lambda: front.call("ImportKeyPair", KeyName="five5", PublicKeyMaterial=other))
        == "Client.InvalidParameter.Value.KeyName"
    )


def test_a_made_key_pair_comes_with_its_private_key(front: TestFront) -> None:
    made = front.call("CreateKeyPair", KeyName="operator", Password="rosebud", Description="ours")
    key = load_pem_private_key(made["KeyMaterial"].encode(), b"rosebud")
    assert isinstance(key, rsa.RSAPrivateKey)
    front.settle()
    assert len(front.cloud.machines.keypairs()) == 1
    assert front.call("DescribeKeyPairs")["KeySet"][0]["KeyFingerprint"] == made["KeyFingerprint"]


def test_images_and_zones_are_named(front: TestFront) -> None:
    (image,) = front.call("DescribeImages", ImageName=["ubuntu"])["ImagesSet"]
    assert image["ImageId"].isdecimal()
    zones = front.call("DescribeAvailabilityZones")["AvailabilityZoneInfo"]
    assert [(one["ZoneName"], one["IsDefault"]) for one in zones] == [("east-11", True), ("east-12", False)]


# ---- what is ordered


def test_a_call_fails_on_order_before_or_after_its_effect(front: TestFront) -> None:
    front.order(FaultOrder("RunInstances", code="Server.InternalError", nth=2))
    front.order(FaultOrder("AllocateAddress", lost=True, effect="after", delay=90))
    front.server("web1")
    assert _code(lambda: front.call("RunInstances", InstanceId="web2", ImageId=front.image())) == "Server.InternalError"
    assert len(front.call("DescribeInstances")["ReservationSet"]) == 1
    front.call("RunInstances", InstanceId="web2", ImageId=front.image())
    began = front.clock.monotonic()
    assert front.raw("AllocateAddress", {}).lost
    assert front.clock.monotonic() - began >= 90
    assert len(front.call("DescribeAddresses")["AddressesSet"]) == 1
    with front.store.transaction() as tx:
        assert ("AllocateAddress", "lost") in tx.calls()


def test_too_many_calls_are_refused_until_time_passes(front: TestFront) -> None:
    with front.store.transaction() as tx:
        tx.put(PaceRow(rate=1, burst=3))
    for _ in range(3):
        front.call("DescribeInstances")
    assert front.raw("DescribeInstances", {}).status == 429
    front.clock.sleep(1)
    front.call("DescribeInstances")

"""The API's calls about servers, one method each, with types. Servers are named as the API names them: by name, not by id.

Source: the SDK's service model (computing 3.0).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from moyai.cloud.nifcloud.sdk import Answer
from moyai.cloud.nifcloud.wire import Wire
from moyai.cloud.nifcloud.wire_values import part, rows, text


@dataclass(frozen=True)
class WireNic:
    """``network``: its id (``net-…``). ``network_name``: of a private LAN. ``address``: what the guest's tools report."""

    network: str
    network_name: str = ""
    address: str = ""
    mac: str = ""


@dataclass(frozen=True)
class WireInstance:
    """A server. ``name``: the cloud's (``InstanceId``); ``id``: the one that stays (``i-…``). ``disks``: names of volumes."""

    id: str
    name: str
    description: str
    state: str
    zone: str
    type: str
    image: str = ""
    public_address: str = ""
    private_address: str = ""
    groups: tuple[str, ...] = ()
    nics: tuple[WireNic, ...] = ()
    disks: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class NewNic:
    """``address``: empty: by DHCP; ``static``: the guest configures itself."""

    network: str
    address: str = ""

    @property
    def argument(self) -> dict[str, str]:
        by = "NetworkId" if self.network.startswith("net-") else "NetworkName"
        return {by: self.network, **({"IpAddress": self.address} if self.address else {})}


@dataclass(frozen=True)
class NewInstance:
    """``accounting``: 1 by the month, 2 by the hour. ``user_data``: plain text."""

    name: str
    description: str
    image: str
    type: str
    zone: str
    group: str
    key_name: str
    nics: tuple[NewNic, ...]
    public: bool
    accounting: str
    user_data: str = field(repr=False)


class InstanceCalls:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def all(self) -> list[WireInstance]:
        """All of the account in the region. A call that names servers fails as a whole for one that is gone, so none is
        named."""
        answer = self._wire.read("DescribeInstances")
        return [
            _instance(one, reservation)
            for reservation in rows(answer, "ReservationSet")
            for one in rows(reservation, "InstancesSet")
        ]

    def disk_slots(self, name: str) -> dict[str, str]:
        """Name of a disk → where the guest sees it (``SCSI (0:N)``), which no other call says."""
        answer = self._wire.read(
            "DescribeInstanceAttribute", {"InstanceId": name, "Attribute": "blockDeviceMapping"}, object_id=name
        )
        found = ((part(one, "Ebs"), text(one, "DeviceName")) for one in rows(answer, "BlockDeviceMapping"))
        return {text(ebs, "VolumeId"): device for ebs, device in found if text(ebs, "VolumeId")}

    def run(self, wanted: NewInstance) -> None:
        """Raises LostReply where nobody knows whether there will be a server: the API asks to look in that case."""
        arguments: dict[str, Any] = {
            "InstanceId": wanted.name,
            "Description": wanted.description,
            "ImageId": wanted.image,
            "InstanceType": wanted.type,
            "AccountingType": wanted.accounting,
            "NetworkInterface": [nic.argument for nic in wanted.nics],
            "IpType": "static" if wanted.public else "none",
            "DisableApiTermination": False,
        }
        if wanted.zone:
            arguments["Placement"] = {"AvailabilityZone": wanted.zone}
        if wanted.group:
            arguments["SecurityGroup"] = [wanted.group]
        if wanted.key_name:
            arguments["KeyName"] = wanted.key_name
        if wanted.user_data:
            content = base64.b64encode(wanted.user_data.encode()).decode()
            arguments["UserData"] = {"Content": content, "Encoding": "base64"}
        self._wire.change("RunInstances", arguments, object_id=wanted.name)

    def stop(self, name: str, *, force: bool) -> None:
        """``force`` cuts the power, which may damage what the guest has not written."""
        self._wire.change("StopInstances", {"InstanceId": [name], "Force": force}, object_id=name)

    def start(self, name: str) -> None:
        self._wire.change("StartInstances", {"InstanceId": [name]}, object_id=name)

    def reboot(self, name: str) -> None:
        self._wire.change("RebootInstances", {"InstanceId": [name]}, object_id=name)

    def terminate(self, name: str) -> None:
        self._wire.change("TerminateInstances", {"InstanceId": [name]}, object_id=name)

    def set_attribute(self, name: str, *, attribute: str, value: str) -> None:
        """``attribute``: description, groupId …"""
        arguments = {"InstanceId": name, "Attribute": attribute, "Value": value}
        self._wire.change("ModifyInstanceAttribute", arguments, object_id=name)

    def attach_disk(self, name: str, disk: str) -> None:
        self._wire.change("AttachVolume", {"InstanceId": name, "VolumeId": disk}, object_id=disk)

    def detach_disk(self, name: str, disk: str) -> None:
        """Also from a server that runs: its guest must have let go of the disk."""
        arguments = {"InstanceId": name, "VolumeId": disk, "Agreement": True}
        self._wire.change("DetachVolume", arguments, object_id=disk)

    def zones(self) -> list[str]:
        """Those that take servers now, the account's own first."""
        found = rows(self._wire.read("DescribeAvailabilityZones"), "AvailabilityZoneInfo")
        open_ones = [one for one in found if text(one, "ZoneState") == "available"]
        return [text(one, "ZoneName") for one in sorted(open_ones, key=lambda one: not one.get("IsDefault"))]

    def key_pairs(self) -> dict[str, str]:
        """Name → description."""
        found = rows(self._wire.read("DescribeKeyPairs"), "KeySet")
        return {text(one, "KeyName"): text(one, "Description") for one in found}

    def import_key_pair(self, name: str, *, description: str, public_key: str) -> None:
        material = base64.b64encode(public_key.strip().encode()).decode()
        arguments = {"KeyName": name, "Description": description, "PublicKeyMaterial": material}
        self._wire.change("ImportKeyPair", arguments, object_id=name)

    def delete_key_pair(self, name: str) -> None:
        self._wire.change("DeleteKeyPair", {"KeyName": name}, object_id=name)


def _instance(data: Answer, reservation: Answer) -> WireInstance:
    mapping = (part(one, "Ebs") for one in rows(data, "BlockDeviceMapping"))
    return WireInstance(
        id=text(data, "InstanceUniqueId"),
        name=text(data, "InstanceId"),
        description=text(data, "Description"),
        state=text(part(data, "InstanceState"), "Name"),
        zone=text(part(data, "Placement"), "AvailabilityZone"),
        type=text(data, "InstanceType"),
        image=text(data, "ImageId"),
        public_address=text(data, "IpAddress"),
        private_address=text(data, "PrivateIpAddress"),
        groups=tuple(text(one, "GroupId") for one in rows(reservation, "GroupSet")),
        nics=tuple(
            WireNic(
                text(one, "NiftyNetworkId"),
                text(one, "NiftyNetworkName"),
                text(one, "PrivateIpAddress") or text(part(one, "Association"), "PublicIp"),
                text(one, "MacAddress"),
            )
            for one in rows(data, "NetworkInterfaceSet")
        ),
        disks=tuple(volume for ebs in mapping if (volume := text(ebs, "VolumeId"))),
        fault=text(part(data, "StateReason"), "Message"),
    )

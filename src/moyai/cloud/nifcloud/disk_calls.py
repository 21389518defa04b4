"""The API's calls about additional disks, one method each, with types. A disk is called by its name (``VolumeId``).

Source: the SDK's service model (computing 3.0); disk types: the vendor's CSI driver and its Terraform provider.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from moyai.cloud.model import LONG_AGO
from moyai.cloud.nifcloud.disk_types import DISK_TYPES
from moyai.cloud.nifcloud.sdk import Answer
from moyai.cloud.nifcloud.wire import Wire
from moyai.cloud.nifcloud.wire_values import moment, rows, text, whole


@dataclass(frozen=True)
class WireAttachment:
    """``server``: its name; ``server_id``: the id that stays. ``status``: attaching, attached …"""

    server: str
    server_id: str
    status: str


@dataclass(frozen=True)
class WireDisk:
    """``type``: as StorageClasses name it, or the API's word for one that they do not know. ``accounting``: 1 by the month,
    2 by the hour."""

    name: str
    description: str
    status: str
    size_gb: int
    zone: str
    type: str
    attachments: tuple[WireAttachment, ...] = ()
    created: datetime = LONG_AGO
    accounting: str = ""


@dataclass(frozen=True)
class NewDisk:
    """``server``: the name of the one that it is born on. ``accounting``: 1 by the month, 2 by the hour."""

    name: str
    description: str
    size_gb: int
    type: str
    server: str
    accounting: str


class DiskCalls:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def all(self) -> list[WireDisk]:
        """All of the account in the region: a call that names a disk fails as a whole for one that is gone."""
        return [_disk(one) for one in rows(self._wire.read("DescribeVolumes"), "VolumeSet")]

    def create(self, wanted: NewDisk) -> None:
        arguments = {
            "VolumeId": wanted.name,
            "Description": wanted.description,
            "Size": wanted.size_gb,
            "DiskType": DISK_TYPES.get(wanted.type, wanted.type),
            "AccountingType": wanted.accounting,
            "InstanceId": wanted.server,
        }
        self._wire.change("CreateVolume", arguments, object_id=wanted.name)

    def describe(self, name: str, description: str) -> None:
        arguments = {"VolumeId": name, "Attribute": "description", "Value": description}
        self._wire.change("ModifyVolumeAttribute", arguments, object_id=name)

    def extend(self, name: str) -> None:
        """By 100 GiB. A lost reply is not to be repeated before the size was read."""
        self._wire.change("ExtendVolumeSize", {"VolumeId": name, "NiftyReboot": "false"}, object_id=name)

    def detach(self, name: str) -> None:
        """From all servers, also from those that run or are gone."""
        self._wire.change("DetachVolume", {"VolumeId": name, "Agreement": True}, object_id=name)

    def delete(self, name: str) -> None:
        self._wire.change("DeleteVolume", {"VolumeId": name}, object_id=name)


def _disk(data: Answer) -> WireDisk:
    attached = [
        WireAttachment(text(one, "InstanceId"), text(one, "InstanceUniqueId"), text(one, "Status"))
        for one in rows(data, "AttachmentSet")
    ]
    return WireDisk(
        name=text(data, "VolumeId"),
        description=text(data, "Description"),
        status=text(data, "Status"),
        size_gb=whole(data, "Size") or 0,
        zone=text(data, "AvailabilityZone"),
        type=_type(text(data, "DiskType")),
        # the answer for a free disk has an empty entry
        attachments=tuple(one for one in attached if one.server or one.server_id),
        created=moment(data, "CreateTime"),
        accounting=text(data, "AccountingType"),
    )


def _type(said: str) -> str:
    """``high-speed-flash-a`` of ``High-Speed Flash Storage A``."""
    found = "-".join(said.lower().replace(" storage", "").split())
    return found if found in DISK_TYPES else said

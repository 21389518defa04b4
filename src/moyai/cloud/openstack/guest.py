"""What a machine of OpenStack knows of itself: which one it is, in which zone, and where its volumes show.

Read without any credential. The sources are tried in this order, since the first ones cost nothing and do not depend on the
network: cloud-init's file, a config drive that is laid open, the metadata service.
"""

from __future__ import annotations

import http.client
import json
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from moyai.cloud.model import Instance

METADATA_URL = "http://169.254.169.254/openstack/latest/meta_data.json"
NOTES = (
    Path("/run/cloud-init/instance-data.json"),
    Path("/var/lib/cloud/seed/config_drive/openstack/latest/meta_data.json"),
)
_SECONDS = 10.0


def from_json(text: str) -> Instance | None:
    """From cloud-init's instance data (``v1``, ``ds``) or from OpenStack's own meta_data.json (``uuid``); None: neither."""
    try:
        data: object = json.loads(text)
    except ValueError:
        return None
    if not isinstance(data, Mapping):
        return None
    known = cast("Mapping[str, Any]", data)
    own = known if "uuid" in known else _part(_part(known, "ds"), "meta_data")
    noted = _part(known, "v1")
    server = own.get("uuid") or noted.get("instance_id") or ""
    zone = own.get("availability_zone") or noted.get("availability_zone") or ""
    return Instance(str(server), str(zone)) if server else None


def _part(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found: object = data.get(key)
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


def fetch(url: str = METADATA_URL) -> str:
    """What the metadata service says; OSError where it does not answer."""
    # the cloud's own service: never by a proxy
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=_SECONDS) as answer:
        return answer.read().decode(errors="replace")


def find(notes: Sequence[Path] = NOTES, get: Callable[[], str] = fetch) -> Instance | None:
    """This machine, None while no source names it. Blocks for some seconds."""
    for note in notes:
        try:
            found = from_json(note.read_text())
        except OSError:
            continue
        # a file without a zone is not enough; the cloud may know the zone
        if found and found.zone:
            return found
    try:
        return from_json(get())
    except (OSError, http.client.HTTPException):
        return None


def disk_links(volume_id: str, _device: str = "") -> tuple[str, ...]:
    """Where udev (or the local cloud) shows a volume: virtio disks cut the id, SCSI ones keep it whole or cut it too."""
    short = volume_id[:20]
    return (
        f"/dev/disk/by-id/virtio-{short}",
        f"/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{volume_id}",
        f"/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{short}",
        f"/dev/disk/by-id/virtio-{volume_id}",
    )


class OpenStackGuest:
    """Implements ``cloud.own_machine.Guest``."""

    def instance(self) -> Instance | None:
        return find()

    def disk_links(self, volume_id: str, device: str = "") -> tuple[str, ...]:
        return disk_links(volume_id)

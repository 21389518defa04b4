"""Nova: servers, flavors, zones, key pairs (``cloud.capabilities.Machines``)."""

from __future__ import annotations

import base64
import gzip
import urllib.parse
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from moyai.cloud.model import Flavor, Power, Quota, RootDisk, Server, SpreadGroup
from moyai.cloud.openstack import parse, provider_ids
from moyai.cloud.openstack.server_states import WAKES
from moyai.cloud.openstack.session import CloudSession, Params
from moyai.core.errors import Conflict, NotFound, UsageError

#: OpenStack Queens. 2.37: networks are explicit; 2.47: the flavor is embedded; 2.52: tags at creation.
_MICROVERSION = "2.60"
#: A volume's type is named when its server is made.
_VOLUME_TYPES = "2.67"
#: Rules of groups whose servers are on different hosts: always, where possible. Soft ones: 2.15.
_STRICT, _SOFT = "anti-affinity", "soft-anti-affinity"
#: What Nova takes, counted after encoding.
_USER_DATA_LIMIT = 65535
_USER_DATA_HINT = "user data may have 65535 bytes, encoded and compressed"


def _root(image_id: str, disk: RootDisk) -> dict[str, Any]:
    """The volume that a server begins on. It goes with the server: nothing of a node's root outlives it."""
    made = {
        "source_type": "image",
        "uuid": image_id,
        "destination_type": "volume",
        "boot_index": 0,
        "volume_size": disk.size_gb,
    }
    return made | {"delete_on_termination": True} | ({"volume_type": disk.type} if disk.type else {})


class NovaMachines:
    def __init__(self, session: CloudSession) -> None:
        self._session = session
        self._nova = session.service("compute", microversion=_MICROVERSION)

    def flavors(self) -> list[Flavor]:
        rows = self._nova.list("/flavors/detail", "flavors", operation="list flavors")
        return [parse.flavor(row) for row in rows]

    def precache_image(self, image_id: str) -> None:
        """Ask the hypervisors to fetch an image before the first server needs it (administrators only).

        Source: https://docs.openstack.org/api-ref/compute/ (Cache Images for Aggregate, microversion 2.81).
        """
        nova = self._session.service("compute", microversion="2.81")
        rows = nova.list("/os-aggregates", "aggregates", operation="list aggregates")
        for row in rows:
            nova.post(
                f"/os-aggregates/{row['id']}/images",
                {"cache": [{"id": image_id}]},
                operation="cache image",
                object_id=image_id,
            )

    def zones(self) -> list[str]:
        rows = self._nova.list("/os-availability-zone", "availabilityZoneInfo", operation="list availability zones")
        return sorted(row["zoneName"] for row in rows if row["zoneState"]["available"])

    def servers(self, *, tag: str | None = None) -> list[Server]:
        params: Params = {"tags": tag} if tag else {}
        rows = self._nova.list("/servers/detail", "servers", operation="list servers", params=params)
        return [parse.server(row) for row in rows]

    def settled_servers(self, *, tag: str) -> frozenset[str]:
        # without details Nova reads one table; with them it asks Neutron for every server's groups
        params: Params = {"tags": tag, "status": ["ACTIVE", "ERROR"]}
        return frozenset(
            str(row["name"]) for row in self._nova.list("/servers", "servers", operation="list servers", params=params)
        )

    def server(self, server_id: str) -> Server:
        found = self._nova.get(f"/servers/{server_id}", operation="show server", object_id=server_id)
        return parse.server(found["server"])

    def provider_id(self, server_id: str, zone: str = "") -> str:
        return provider_ids.provider_id(server_id)

    def server_id(self, provider_id: str) -> str | None:
        return provider_ids.server_id(provider_id)

    def create_server(
        self,
        *,
        name: str,
        image_id: str,
        flavor_id: str,
        port_ids: Sequence[str],
        user_data: str,
        zone: str = "",
        key_name: str = "",
        metadata: Mapping[str, str],
        tags: Sequence[str],
        root: RootDisk | None = None,
        group_id: str = "",
    ) -> Server:
        wanted: dict[str, Any] = {
            "name": name,
            "imageRef": image_id,
            "flavorRef": flavor_id,
            "networks": [{"port": port_id} for port_id in port_ids],
            "user_data": encode_user_data(name, user_data),
            "config_drive": True,
            "metadata": dict(metadata),
            "tags": list(tags),
        }
        if zone:
            wanted["availability_zone"] = zone
        if key_name:
            wanted["key_name"] = key_name
        if root:
            wanted |= {"imageRef": "", "block_device_mapping_v2": [_root(image_id, root)]}
        body: dict[str, Any] = {"server": wanted}
        if group_id:
            body["os:scheduler_hints"] = {"group": group_id}
        nova = self._session.service("compute", microversion=_VOLUME_TYPES) if root and root.type else self._nova
        made = nova.post("/servers", body, operation=f"create server {name}")["server"]
        # the answer has little more than the id; what was asked for is known, and the first look says the rest
        return Server(
            id=made["id"],
            name=name,
            status="BUILD",
            power=Power.STARTING,
            zone=zone,
            flavor_name="",
            metadata=dict(metadata),
            tags=tuple(sorted(tags)),
        )

    def spread_groups(self) -> list[SpreadGroup]:
        rows = self._nova.list("/os-server-groups", "server_groups", operation="list server groups", params={"limit": 1000})
        # before 2.64 a group has a list of policies
        found = [(row, (row.get("policies") or [""])[0]) for row in rows]
        return [
            SpreadGroup(str(row["id"]), str(row["name"]), rule == _STRICT) for row, rule in found if rule in (_STRICT, _SOFT)
        ]

    def create_spread_group(self, name: str, *, strict: bool) -> SpreadGroup:
        wanted = {"name": name, "policies": [_STRICT if strict else _SOFT]}
        made = self._nova.post("/os-server-groups", {"server_group": wanted}, operation=f"create server group {name}")
        return SpreadGroup(str(made["server_group"]["id"]), name, strict)

    def delete_spread_group(self, group_id: str) -> None:
        try:
            self._nova.delete(f"/os-server-groups/{group_id}", operation="delete server group", object_id=group_id)
        except NotFound:
            return

    def delete_server_metadata(self, server_id: str, keys: Collection[str]) -> None:
        for key in sorted(keys):
            try:
                self._nova.delete(
                    f"/servers/{server_id}/metadata/{urllib.parse.quote(key, safe='')}",
                    operation=f"delete server metadata {key}",
                    object_id=server_id,
                )
            except NotFound:
                continue

    def delete_server(self, server_id: str) -> None:
        try:
            self._nova.delete(f"/servers/{server_id}", operation="delete server", object_id=server_id)
        except NotFound:
            return

    def stop_server(self, server_id: str) -> None:
        self._power(server_id, "os-stop", goal="SHUTOFF")

    def start_server(self, server_id: str) -> None:
        self._power(server_id, "os-start", goal="ACTIVE")

    def resume_server(self, server_id: str) -> None:
        if action := WAKES.get(self.server(server_id).status):
            self._power(server_id, action, goal="ACTIVE")

    def reboot_server(self, server_id: str) -> None:
        self._act(server_id, {"reboot": {"type": "SOFT"}}, operation="reboot server")

    def _act(self, server_id: str, action: Mapping[str, Any], *, operation: str) -> None:
        self._nova.post(f"/servers/{server_id}/action", dict(action), operation=operation, object_id=server_id)

    def _power(self, server_id: str, action: str, *, goal: str) -> None:
        try:
            self._act(server_id, {action: None}, operation=f"{action.removeprefix('os-')} server")
        except Conflict:
            # Nova refuses to stop what is stopped; for us that is done
            if self.server(server_id).status != goal:
                raise

    def console_log(self, server_id: str, lines: int = 100) -> str:
        answer = self._nova.post(
            f"/servers/{server_id}/action",
            {"os-getConsoleOutput": {"length": lines}},
            operation="read console log",
            object_id=server_id,
        )
        return str(answer.get("output") or "")

    def attach_volume(self, server_id: str, volume_id: str) -> None:
        self._nova.post(
            f"/servers/{server_id}/os-volume_attachments",
            {"volumeAttachment": {"volumeId": volume_id}},
            operation=f"attach volume {volume_id}",
            object_id=server_id,
        )

    def detach_volume(self, server_id: str, volume_id: str) -> None:
        try:
            self._nova.delete(
                f"/servers/{server_id}/os-volume_attachments/{volume_id}",
                operation=f"detach volume {volume_id}",
                object_id=server_id,
            )
        except NotFound:
            return

    def keypairs(self) -> list[str]:
        rows = self._nova.list("/os-keypairs", "keypairs", operation="list key pairs")
        return sorted(row["keypair"]["name"] for row in rows)

    def create_keypair(self, name: str, public_key: str) -> None:
        self._nova.post(
            "/os-keypairs",
            {"keypair": {"name": name, "type": "ssh", "public_key": public_key}},
            operation=f"create key pair {name}",
        )

    def delete_keypair(self, name: str) -> None:
        try:
            self._nova.delete(f"/os-keypairs/{urllib.parse.quote(name, safe='')}", operation="delete key pair", object_id=name)
        except NotFound:
            return

    def quotas(self) -> list[Quota]:
        return parse.compute_quotas(self._nova.get("/limits", operation="read compute quotas"))


def encode_user_data(server_name: str, text: str) -> str:
    """Base64 as Nova wants it; compressed (cloud-init unpacks gzip by itself) where the plain text would not fit.

    Raises UsageError when even that is over Nova's limit.
    """
    plain = text.encode()
    encoded = base64.b64encode(plain)
    if len(encoded) > _USER_DATA_LIMIT:
        # no time in the header: the same text gives the same bytes
        encoded = base64.b64encode(gzip.compress(plain, mtime=0))
    if len(encoded) > _USER_DATA_LIMIT:
        raise UsageError(f"the user data of {server_name} is too long ({len(encoded)} bytes)", hint=_USER_DATA_HINT)
    return encoded.decode()

"""OpenStack's JSON as moyai's facts. Pure; a field that an older or thinner cloud leaves out becomes the model's default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import cast

from moyai.cloud.model import (
    LONG_AGO,
    Address,
    Attachment,
    Flavor,
    FloatingIP,
    Image,
    Network,
    Port,
    PortUse,
    Quota,
    Route,
    Router,
    SecurityGroup,
    SecurityGroupRule,
    Server,
    Snapshot,
    SourceAddress,
    Subnet,
    Volume,
    VolumeType,
)
from moyai.cloud.openstack import disk_states
from moyai.cloud.openstack import server_states as servers
from moyai.cloud.openstack.session import Json
from moyai.core.keys import Kind


def _text(value: object) -> str:
    return str(value) if value is not None else ""


def _rows(value: object) -> list[Json]:
    return cast("list[Json]", value or [])


def _tags(data: Json) -> tuple[str, ...]:
    return tuple(sorted(str(tag) for tag in data.get("tags") or ()))


def flavor(data: Json) -> Flavor:
    return Flavor(
        id=data["id"],
        name=data["name"],
        vcpus=int(data["vcpus"]),
        memory_mb=int(data["ram"]),
        disk_gb=int(data["disk"]) if "disk" in data else None,
    )


def server(data: Json) -> Server:
    """From a detailed view (microversion 2.47 or later: the flavor is embedded)."""
    addresses: list[Address] = []
    for network, rows in cast("Mapping[str, list[Json]]", data.get("addresses") or {}).items():
        for row in rows:
            kind = "floating" if row.get("OS-EXT-IPS:type") == "floating" else "fixed"
            addresses.append(Address(row["addr"], kind, network, _text(row.get("OS-EXT-IPS-MAC:mac_addr"))))
    embedded = cast("Json", data.get("flavor") or {})
    fault = _text(cast("Json", data.get("fault") or {}).get("message"))
    status = _text(data.get("status")).upper()
    return Server(
        id=data["id"],
        name=_text(data.get("name")),
        status=status,
        zone=_text(data.get("OS-EXT-AZ:availability_zone")),
        flavor_name=_text(embedded.get("original_name") or embedded.get("id")),
        addresses=tuple(addresses),
        metadata={str(key): _text(value) for key, value in cast("Json", data.get("metadata") or {}).items()},
        tags=_tags(data),
        # the hypervisor's name is for admins; others get a hash of it, which distinguishes hosts well enough
        host=_text(data.get("OS-EXT-SRV-ATTR:host") or data.get("hostId")),
        fault=fault,
        delete_failed=status == "ERROR" and "delete" in fault.lower(),
        volume_ids=tuple(row["id"] for row in _rows(data.get("os-extended-volumes:volumes_attached"))),
        power=servers.power(status),
        evidence=servers.evidence(
            status=status,
            state=_text(data.get("OS-EXT-STS:vm_state")),
            hypervisor=_text(data.get("OS-EXT-STS:power_state")),
            task=_text(data.get("OS-EXT-STS:task_state")),
        ),
        # a text without anything where the server starts from a volume
        image_id=_text(cast("Json", data.get("image") or {}).get("id")),
    )


def network(data: Json, project_id: str = "") -> Network:
    """``project_id``: the user's own project."""
    owner = _text(data.get("project_id") or data.get("tenant_id"))
    return Network(
        id=data["id"],
        name=_text(data.get("name")),
        subnet_ids=tuple(data.get("subnets") or ()),
        external=bool(data.get("router:external")),
        mtu=int(data.get("mtu") or 1500),
        tags=_tags(data),
        foreign=bool(project_id and owner and owner != project_id),
    )


def subnet(data: Json) -> Subnet:
    return Subnet(
        id=data["id"],
        name=_text(data.get("name")),
        network_id=data["network_id"],
        cidr=data["cidr"],
        gateway=_text(data.get("gateway_ip")),
        tags=_tags(data),
        pools=tuple((_text(row["start"]), _text(row["end"])) for row in _rows(data.get("allocation_pools"))),
        dhcp=bool(data.get("enable_dhcp", True)),
    )


def router(data: Json) -> Router:
    gateway = cast("Json", data.get("external_gateway_info") or {})
    return Router(
        id=data["id"],
        name=_text(data.get("name")),
        external_network_id=_text(gateway.get("network_id")),
        routes=tuple(sorted(Route(row["destination"], row["nexthop"]) for row in _rows(data.get("routes")))),
        tags=_tags(data),
    )


def port(data: Json) -> Port:
    """An allowed address pair with the port's own MAC, which the cloud fills in, reads as one without."""
    mac = _text(data.get("mac_address"))
    pairs = [
        SourceAddress(row["ip_address"], "" if row.get("mac_address") == mac else _text(row.get("mac_address")))
        for row in _rows(data.get("allowed_address_pairs"))
    ]
    fixed = _rows(data.get("fixed_ips"))
    return Port(
        id=data["id"],
        name=_text(data.get("name")),
        network_id=data["network_id"],
        status=_text(data.get("status")).upper(),
        fixed_ips=tuple(row["ip_address"] for row in fixed if row.get("ip_address")),
        subnet_ids=tuple(row["subnet_id"] for row in fixed),
        mac=mac,
        device_id=_text(data.get("device_id")),
        use=port_use(_text(data.get("device_owner"))),
        send_from=tuple(sorted(pairs)),
        security_group_ids=tuple(sorted(data.get("security_groups") or ())),
        tags=_tags(data),
    )


def port_use(owner: str) -> PortUse:
    """Source: https://docs.openstack.org/api-ref/network/v2/#ports (device_owner), and neutron_lib.constants.DEVICE_OWNER_*."""
    if not owner:
        return PortUse.NOTHING
    if owner.startswith("compute:"):
        return PortUse.MACHINE
    if owner.startswith("network:"):
        return PortUse.ROUTER if owner.startswith("network:router_interface") else PortUse.CLOUD
    return PortUse.OTHER


def security_group(data: Json) -> SecurityGroup:
    return SecurityGroup(
        id=data["id"], name=_text(data.get("name")), description=_text(data.get("description")), tags=_tags(data)
    )


def security_group_rule(data: Json) -> SecurityGroupRule:
    return SecurityGroupRule(
        id=data["id"],
        group_id=data["security_group_id"],
        direction=data["direction"],
        ethertype=data["ethertype"],
        protocol=data.get("protocol"),
        port_min=data.get("port_range_min"),
        port_max=data.get("port_range_max"),
        remote_cidr=data.get("remote_ip_prefix"),
        remote_group_id=data.get("remote_group_id"),
        description=_text(data.get("description")),
    )


def floating_ip(data: Json) -> FloatingIP:
    return FloatingIP(
        id=data["id"],
        address=data["floating_ip_address"],
        status=_text(data.get("status")).upper(),
        port_id=_text(data.get("port_id")),
        fixed_ip=_text(data.get("fixed_ip_address")),
        network_id=_text(data.get("floating_network_id")),
        description=_text(data.get("description")),
        tags=_tags(data),
    )


#: What Glance says of every image; all else is a property.
_IMAGE_FIELDS = frozenset(
    {
        "id",
        "name",
        "status",
        "checksum",
        "visibility",
        "owner",
        "owner_id",
        "min_disk",
        "min_ram",
        "size",
        "virtual_size",
        "disk_format",
        "container_format",
        "created_at",
        "updated_at",
        "protected",
        "tags",
        "self",
        "file",
        "schema",
        "os_hidden",
        "os_hash_algo",
        "os_hash_value",
        "locations",
        "direct_url",
        "stores",
    }
)


def image(data: Json) -> Image:
    return Image(
        id=data["id"],
        name=_text(data.get("name")),
        status=_text(data.get("status")).upper(),
        ready=data.get("status") == "active",
        checksum=_text(data.get("os_hash_value") or data.get("checksum")),
        empty=data.get("status") == "queued",
        created=_text(data.get("created_at")),
        min_disk_gib=int(data.get("min_disk") or 0),
        properties={key: _text(value) for key, value in data.items() if key not in _IMAGE_FIELDS},
    )


def _pairs(value: object) -> dict[str, str]:
    return {str(key): _text(one) for key, one in cast("Json", value or {}).items()}


def _date(value: object) -> datetime:
    try:
        found = datetime.fromisoformat(_text(value))
    except ValueError:
        return LONG_AGO
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def volume(data: Json) -> Volume:
    attachments = tuple(
        Attachment(row["server_id"], _text(row.get("attachment_id")), _text(row.get("device")))
        for row in _rows(data.get("attachments"))
        if row.get("server_id")
    )
    status = _text(data.get("status")).upper()
    return Volume(
        id=data["id"],
        name=_text(data.get("name")),
        status=status,
        state=disk_states.state(status),
        size_gb=int(data["size"]),
        zone=_text(data.get("availability_zone")),
        metadata=_pairs(data.get("metadata")),
        attached_server_ids=tuple(one.server_id for one in attachments),
        type_name=_text(data.get("volume_type")),
        multiattach=bool(data.get("multiattach")),
        snapshot_id=_text(data.get("snapshot_id")),
        source_volume_id=_text(data.get("source_volid")),
        created=_date(data.get("created_at")),
        attachments=attachments,
    )


def snapshot(data: Json) -> Snapshot:
    status = _text(data.get("status")).upper()
    return Snapshot(
        id=data["id"],
        name=_text(data.get("name")),
        status=status,
        state=disk_states.state(status),
        volume_id=_text(data.get("volume_id")),
        size_gb=int(data["size"]),
        created=_date(data.get("created_at")),
        metadata=_pairs(data.get("metadata")),
    )


def volume_type(data: Json) -> VolumeType:
    """A user who is no administrator sees some of the extra specs, or none at all (then nothing is known)."""
    if "extra_specs" not in data:
        return VolumeType(id=data["id"], name=_text(data.get("name")))
    specs = cast("Json", data["extra_specs"] or {})
    zones = _text(specs.get("RESKEY:availability_zones"))
    return VolumeType(
        id=data["id"],
        name=_text(data.get("name")),
        multiattach="true" in _text(specs.get("multiattach")).lower(),
        zones=tuple(zone.strip() for zone in zones.split(",") if zone.strip()),
    )


#: Of ``limits.absolute``: our name (the one in the cloud's quota messages) → field with the limit, field with the use.
#: Quota → what it counts.
_COUNTED = {
    "cores": Kind.CPU,
    "ram": Kind.MEMORY,
    "instances": Kind.SERVER,
    "key_pairs": Kind.KEY_PAIR,
    "network": Kind.NETWORK,
    "subnet": Kind.SUBNET,
    "router": Kind.ROUTER,
    "port": Kind.PORT,
    "security_group": Kind.SECURITY_GROUP,
    "security_group_rule": Kind.RULES,
    "floatingip": Kind.FLOATING_IP,
    "volumes": Kind.VOLUME,
    "snapshots": Kind.SNAPSHOT,
}
_COMPUTE_LIMITS = {
    "cores": ("maxTotalCores", "totalCoresUsed"),
    "ram": ("maxTotalRAMSize", "totalRAMUsed"),
    "instances": ("maxTotalInstances", "totalInstancesUsed"),
    "server_groups": ("maxServerGroups", "totalServerGroupsUsed"),
    "key_pairs": ("maxTotalKeypairs", ""),
}
_VOLUME_LIMITS = {
    "volumes": ("maxTotalVolumes", "totalVolumesUsed"),
    "gigabytes": ("maxTotalVolumeGigabytes", "totalGigabytesUsed"),
    "snapshots": ("maxTotalSnapshots", "totalSnapshotsUsed"),
}


def compute_quotas(data: Json) -> list[Quota]:
    return _limits(data, _COMPUTE_LIMITS)


def volume_quotas(data: Json) -> list[Quota]:
    return _limits(data, _VOLUME_LIMITS)


def _limits(data: Json, names: Mapping[str, tuple[str, str]]) -> list[Quota]:
    absolute = cast("Json", cast("Json", data.get("limits") or {}).get("absolute") or {})
    return [
        _quota(name, int(absolute[limit]), used=int(absolute.get(used) or 0))
        for name, (limit, used) in names.items()
        if absolute.get(limit) is not None
    ]


def network_quotas(data: Json) -> list[Quota]:
    """From the details view ({name: {limit, used, reserved}}) or the plain one ({name: limit}, use unknown: 0)."""
    found: list[Quota] = []
    for name, value in sorted(cast("Json", data.get("quota") or {}).items()):
        if isinstance(value, dict):
            row = cast("Json", value)
            found.append(_quota(name, int(row["limit"]), used=int(row.get("used") or 0) + int(row.get("reserved") or 0)))
        elif isinstance(value, int):
            found.append(_quota(name, value, used=0))
    return found


def _quota(name: str, limit: int, *, used: int) -> Quota:
    return Quota(name, limit, used, _COUNTED.get(name))


def chunks(items: Iterable[str], size: int) -> list[list[str]]:
    """``items`` without duplicates, sorted, in lists of at most ``size``: a query string must stay under 8 kB."""
    unique = sorted(set(items))
    return [unique[start : start + size] for start in range(0, len(unique), size)]

"""Servers, instance types, zones and key pairs (``cloud.capabilities.Machines``).

A server's id is the one that stays (``i-…``); calls take names, which users may change, so each call looks the name up. Gone is
a server whose id is not in the whole list.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from moyai.cloud.capabilities import Capability, CapabilityAbsent
from moyai.cloud.model import Address, Flavor, Power, RootDisk, Server, SpreadGroup
from moyai.cloud.nifcloud.error_codes import NameTaken, NoSuchObject
from moyai.cloud.nifcloud.group_calls import GroupCalls, WireGroup
from moyai.cloud.nifcloud.instance_calls import InstanceCalls, NewInstance, NewNic, WireInstance
from moyai.cloud.nifcloud.instance_states import evidence, power
from moyai.cloud.nifcloud.instance_types import FLAVORS
from moyai.cloud.nifcloud.key_names import KeyNames
from moyai.cloud.nifcloud.marks import Mark, adopted, mark_of, read_mark, wire_name, zonal_name
from moyai.cloud.nifcloud.nic_plans import GIVEN_NETWORKS, PUBLIC, read_plan, wire_network
from moyai.cloud.nifcloud.nifcloud_limits import USER_DATA_BYTES, Terms
from moyai.cloud.nifcloud.wire import Wire
from moyai.core.errors import Conflict, NotFound, Retriable, Terminal, Unreachable, UsageError
from moyai.core.ids import CLUSTER_TAG
from moyai.core.waiting import NotYet

_PROVIDER = "nifcloud:///"
#: Seconds for a guest to shut down before its power is cut; for a server to stop after that.
GUEST_SECONDS, STOP_SECONDS = 90.0, 600.0
#: An address that the guest gives itself.
_STATIC = "static"


class NifcloudMachines:
    """``terms``: of what it makes."""

    def __init__(self, wire: Wire, *, cloud: str, terms: Terms) -> None:
        self._wire, self._cloud, self._terms = wire, cloud, terms
        self._calls = InstanceCalls(wire)
        self._keys = KeyNames(wire, self._calls)

    def flavors(self) -> list[Flavor]:
        return list(FLAVORS)

    def zones(self) -> list[str]:
        offered = self._calls.zones()
        if self._terms.whole_region:
            return sorted(offered)
        # the account's own one comes first
        wanted = self._terms.places if self._terms.zone else offered[:1]
        return sorted(one for one in wanted if one in offered)

    def servers(self, *, tag: str | None = None) -> list[Server]:
        found = [server_of(one) for one in self._calls.all()]
        return [one for one in found if tag is None or tag in one.tags]

    def settled_servers(self, *, tag: str) -> frozenset[str]:
        return frozenset(one.name for one in self.servers(tag=tag) if one.power in (Power.RUNNING, Power.FAILED))

    def server(self, server_id: str) -> Server:
        return server_of(self._instance(server_id))

    def provider_id(self, server_id: str, zone: str = "") -> str:
        return f"{_PROVIDER}{zone}/{server_id}"

    def server_id(self, provider_id: str) -> str | None:
        """Also of the forms that the cloud's own controller manager reads: without a zone, and the bare id."""
        found = provider_id.rsplit("/", 1)[-1] if provider_id.startswith(_PROVIDER) else provider_id
        return found if found.startswith("i-") and "/" not in found else None

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
        if left := sorted(set(metadata) - {CLUSTER_TAG}):
            raise CapabilityAbsent(self._cloud, Capability.METADATA, hint=f"it cannot hold {', '.join(left)}")
        if root:
            raise CapabilityAbsent(self._cloud, Capability.ROOT_VOLUMES)
        if group_id:
            raise CapabilityAbsent(self._cloud, Capability.SPREAD)
        mark, plans = mark_of(name, tags), [read_plan(one) for one in port_ids]
        groups = {one.group for one in plans if one.group}
        if len(groups) > 1:
            raise Terminal(f"a server of NIFCLOUD has one firewall group, and {name} is asked for with {len(groups)}")
        _check_user_data(name, user_data)
        zone = zone or self._terms.zone
        if zone and zone not in (offered := self._calls.zones()):
            raise UsageError(f"NIFCLOUD has no zone {zone!r} that takes servers", hint=f"there are: {', '.join(offered)}")
        other = zone if zone in self._terms.others else ""
        group = next(iter(groups), "")
        wanted = NewInstance(
            name=wire_name(mark),
            description=mark.text,
            image=image_id,
            type=flavor_id,
            zone=zone,
            group=self._zonal_group(group, other) if group and other else group,
            key_name=self._keys.wire_name(key_name) if key_name else "",
            nics=tuple(
                NewNic(wire_network(one.network, other), "" if one.network in GIVEN_NETWORKS else one.address or _STATIC)
                for one in plans
            ),
            public=any(one.network == PUBLIC for one in plans),
            accounting=self._terms.accounting,
            user_data=user_data,
        )
        made = self._wire.create(lambda: self._own(wanted.name, mark), lambda: self._calls.run(wanted))
        return server_of(made)

    def spread_groups(self) -> list[SpreadGroup]:
        raise CapabilityAbsent(self._cloud, Capability.SPREAD)

    def create_spread_group(self, name: str, *, strict: bool) -> SpreadGroup:
        raise CapabilityAbsent(self._cloud, Capability.SPREAD)

    def delete_spread_group(self, group_id: str) -> None:
        raise CapabilityAbsent(self._cloud, Capability.SPREAD)

    def _zonal_group(self, group: str, zone: str) -> str:
        """The counterpart of a cluster's group in a further zone. A run that died before it made all of them is made up for;
        its rules come with those of the group."""
        calls = GroupCalls(self._wire)
        found = next((one for one in calls.all() if one.name == group), None)
        mark = read_mark(found.description) if found else None
        if mark is None:
            return group
        name, text = zonal_name(mark, zone), mark.text

        def own() -> WireGroup | None:
            there = next((one for one in calls.all() if one.name == name), None)
            if there is not None:
                adopted(read_mark(there.description), mark, what=f"a firewall group {name}")
            return there

        return self._wire.create(own, lambda: calls.create(name, description=text, zone=zone)).name

    def _own(self, name: str, mark: Mark) -> WireInstance | None:
        """The server of this name. Raises Conflict where it is not the one that is wanted."""
        found = next((one for one in self._calls.all() if one.name == name and one.state != "terminated"), None)
        if found is not None:
            adopted(read_mark(found.description), mark, what=f"a server {name}")
        return found

    def delete_server_metadata(self, server_id: str, keys: Collection[str]) -> None:
        """There is none."""

    def delete_server(self, server_id: str) -> None:
        """Stops it first, by cutting its power: the API terminates what is stopped. Raises Conflict for somebody else's."""
        found = self._find(server_id)
        if found is None or found.state == "terminated":
            return
        if read_mark(found.description) is None:
            raise Conflict(f"server {found.name} is not moyai's", object_id=server_id)
        if found.state != "stopped":
            self._stop(server_id, force=True)
        self._known(server_id, self._calls.terminate)

    def stop_server(self, server_id: str) -> None:
        """Asks the guest. One that has not ended after 90 s loses its power."""
        if self._instance(server_id).state == "stopped":
            return
        try:
            self._stop(server_id, force=False)
        except Retriable:
            self._stop(server_id, force=True)

    def start_server(self, server_id: str) -> None:
        found = self._instance(server_id)
        if found.state == "running":
            return
        if found.state != "stopped":
            raise Conflict(f"server {found.name} is {found.state}, and one that is stopped can be started", object_id=server_id)
        self._wire.settle(
            lambda: self._calls.start(found.name), lambda: self._instance(server_id).state in ("pending", "running")
        )

    def resume_server(self, server_id: str) -> None:
        """NIFCLOUD suspends no server of a user: one that runs is success."""
        found = self._instance(server_id)
        if found.state != "running":
            raise Conflict(f"server {found.name} is {found.state}", object_id=server_id)

    def reboot_server(self, server_id: str) -> None:
        found = self._instance(server_id)
        if found.state != "running":
            raise Conflict(f"server {found.name} is {found.state}, and one that runs can be rebooted", object_id=server_id)
        self._calls.reboot(found.name)

    def console_log(self, server_id: str, lines: int = 100) -> str:
        """NIFCLOUD has no call for it."""
        self._instance(server_id)
        return ""

    def attach_volume(self, server_id: str, volume_id: str) -> None:
        """Terminal for a disk that the server has."""
        found = self._instance(server_id)
        try:
            self._wire.settle(
                lambda: self._calls.attach_disk(found.name, volume_id),
                lambda: volume_id in self._instance(server_id).disks,
            )
        except NameTaken as error:
            if volume_id in self._instance(server_id).disks:
                raise Terminal(f"server {found.name} has disk {volume_id} already", object_id=volume_id) from error
            raise

    def detach_volume(self, server_id: str, volume_id: str) -> None:
        found = self._find(server_id)
        if found is None or volume_id not in found.disks:
            return
        try:
            self._calls.detach_disk(found.name, volume_id)
        except NoSuchObject:
            return
        except Conflict:
            # refused because it is detached already, or on its way
            after = self._find(server_id)
            if after is not None and volume_id in after.disks:
                raise

    def keypairs(self) -> list[str]:
        return self._keys.names()

    def create_keypair(self, name: str, public_key: str) -> None:
        self._keys.create(name, public_key)

    def delete_keypair(self, name: str) -> None:
        self._keys.delete(name)

    # ---- servers by their ids

    def _find(self, server_id: str) -> WireInstance | None:
        return next((one for one in self._calls.all() if one.id == server_id), None)

    def _instance(self, server_id: str) -> WireInstance:
        found = self._find(server_id)
        if found is None:
            raise NotFound(f"NIFCLOUD has no server {server_id}", object_id=server_id)
        return found

    def _known(self, server_id: str, call: Callable[[str], None]) -> None:
        """A call to a server by the name that it has now; one that is gone is success."""
        found = self._find(server_id)
        if found is None:
            return
        try:
            self._wire.settle(lambda: call(found.name), lambda: self._find(server_id) is None)
        except NoSuchObject:
            if self._find(server_id) is not None:
                raise

    def _stop(self, server_id: str, *, force: bool) -> None:
        """Raises Retriable where it does not stop in time."""
        name = self._instance(server_id).name
        try:
            self._wire.settle(lambda: self._calls.stop(name, force=force), lambda: self._off(server_id))
        except Retriable as error:
            # refused because something is being done to it, a stop of an earlier run perhaps, or said to have failed
            if isinstance(error, Unreachable):
                raise

        def look() -> bool | NotYet:
            return True if self._off(server_id) else NotYet(f"server {name} to stop")

        self._wire.wait(look, seconds=STOP_SECONDS if force else GUEST_SECONDS)

    def _off(self, server_id: str) -> bool:
        found = self._find(server_id)
        return found is None or found.state in ("stopped", "terminated")


def server_of(found: WireInstance) -> Server:
    mark = read_mark(found.description)
    addresses = [Address(found.private_address, "fixed", _network(found, PUBLIC))] if found.private_address else []
    if found.public_address:
        addresses.append(Address(found.public_address, "floating", PUBLIC))
    return Server(
        id=found.id,
        name=mark.name if mark else found.name,
        status=found.state.upper(),
        zone=found.zone,
        flavor_name=found.type,
        addresses=tuple(addresses),
        metadata=mark.metadata if mark else {},
        tags=mark.tags if mark else (),
        fault=found.fault if power(found.state) is Power.FAILED else "",
        volume_ids=found.disks,
        power=power(found.state),
        evidence=evidence(found.state),
    )


def _network(found: WireInstance, but: str) -> str:
    """What the network of a server's private address is called."""
    return next((one.network_name or one.network for one in found.nics if one.network != but), "")


def _check_user_data(name: str, user_data: str) -> None:
    length = (len(user_data.encode()) + 2) // 3 * 4
    if length > USER_DATA_BYTES:
        hint = f"user data may have {USER_DATA_BYTES} bytes in base64"
        raise UsageError(f"the user data of {name} is too long ({length} bytes)", hint=hint)
    if user_data and not user_data.startswith("#!"):
        hint = "images of NIFCLOUD run a script that begins with #!, and nothing else"
        raise UsageError(f"the user data of {name} is no script", hint=hint)

"""Clouds in memory with something in them already, for tests that do not build a cluster first."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from moyai.cloud.capabilities import Capability
from moyai.cloud.credentials import Use
from moyai.cloud.memory import Delays, MemoryCloud, Mortal
from moyai.cloud.memory.disks import attached, disk_at
from moyai.cloud.memory.machines import powered
from moyai.cloud.memory.store import StoredCredential
from moyai.cloud.memory.table import Table
from moyai.cloud.model import DiskState, Server, Volume


def memory(
    *, looks: int = 2, mortal: Mortal | None = None, capabilities: Collection[Capability] = tuple(Capability)
) -> MemoryCloud:
    """A cloud in which whatever is asked for is done after so many further calls."""
    cloud = MemoryCloud(delays=Delays.looks(looks), mortal=mortal, capabilities=capabilities)
    cloud.store.limits["gigabytes"] = 1000
    return cloud


def limited(cloud: MemoryCloud, use: Use) -> MemoryCloud:
    """The same cloud, as a part inside a cluster sees it: it may make the calls of its use alone."""
    made = StoredCredential(f"inside-{use.name}", "secret", use)
    cloud.store.credentials[made.id] = made
    return cloud.log_in(made.id, made.secret)


def add_server(cloud: MemoryCloud, name: str, *, zone: str = "az1") -> Server:
    """A server that runs, on no network."""
    store = cloud.store
    return store.servers.put(powered(Server(store.new_id(), name, "", zone, "m1.small"), on=True))


def add_volume(cloud: MemoryCloud, name: str, **more: Any) -> Volume:
    """A volume of 1 GiB that nobody uses, but for what ``more`` says."""
    store = cloud.store
    made = Volume(store.new_id(), name, "", 1, zone="az1", type_name="files", created=store.clock.now())
    made = disk_at(made, DiskState.AVAILABLE)
    return store.volumes.put(replace(made, **more))


def attach(cloud: MemoryCloud, name: str, *, server_id: str, metadata: Mapping[str, str] | None = None) -> Volume:
    """A volume in use by a server. The server does not have to exist."""
    volume = add_volume(cloud, name, metadata=metadata or {})
    return cloud.store.volumes.put(attached(volume, server_id, attachment_id=cloud.store.new_id()))


def named(table: Table[Any], name: str) -> Any:
    """The object of that name."""
    return next(one for one in table if one.name == name)

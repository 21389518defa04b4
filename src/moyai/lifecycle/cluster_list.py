"""The clusters of a cloud: those that it holds parts of, by their tags, beside those that this machine has a record of."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from moyai.cloud.capabilities import Cloud
from moyai.cloud.model import Power
from moyai.core.errors import MoyaiError
from moyai.core.ids import POOL_KEY
from moyai.core.paths import Paths
from moyai.lifecycle.observe import find_clusters
from moyai.lifecycle.record import Record
from moyai.plan.nodes import CONTROL_PLANE_POOL


@dataclass(frozen=True)
class ListedCluster:
    """``running``: how many of its machines run. ``recorded``: whether this machine has its record. ``in_cloud``: False for a
    record whose cluster the cloud holds nothing of."""

    name: str
    uid: str
    control_planes: int
    workers: int
    running: int
    recorded: bool
    in_cloud: bool = True


def list_clusters(cloud: Cloud, paths: Paths) -> list[ListedCluster]:
    """By name, then by UID: several people may have given one name."""
    records = _records(paths)
    listed: list[ListedCluster] = []
    found = find_clusters(cloud)
    for uid, cluster in found.items():
        # an entry of clouds.yaml may be another name for the same cloud: the UID alone says whose record it is
        record = records.get(uid)
        pools = [server.metadata.get(POOL_KEY) for server in cluster.servers]
        planes = pools.count(CONTROL_PLANE_POOL)
        running = sum(server.power is Power.RUNNING for server in cluster.servers)
        name = record.name if record else cluster.name
        listed.append(ListedCluster(name, uid, planes, len(pools) - planes, running=running, recorded=record is not None))
    for uid, record in records.items():
        if uid not in found and record.cloud == cloud.name:
            listed.append(ListedCluster(record.name, uid, 0, 0, running=0, recorded=True, in_cloud=False))
    return sorted(listed, key=lambda one: (one.name, one.uid))


def _records(paths: Paths) -> dict[str, Record]:
    """UID → this machine's record of the cluster. A record that cannot be read is none."""
    found: dict[str, Record] = {}
    for name in Record.names(paths):
        with suppress(MoyaiError):
            if record := Record.open(paths, name):
                found[record.uid] = record
    return found

"""``restore``: a cluster from a backup, on new machines.

The backup becomes the cluster's record, and ``up`` does the rest: the plan's founder begins with etcd's data from the snapshot.
Always holds: a cluster that lives, or whose control plane's machines exist, is never touched; nothing is on record before the
backup was read to its end and the plan was accepted; nothing that the cloud has is deleted because the backup does not know it;
the same command goes on after an interruption.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from moyai.cloud.capabilities import Capability, Cloud
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, Terminal, UsageError
from moyai.core.files import naming, rename_durably, write_private
from moyai.core.ids import CLUSTER_TAG, cluster_tag, is_dns_label
from moyai.core.locks import file_lock
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.kube.objects import object_key, parse_volume
from moyai.kube.quick import KubeApi
from moyai.kube.resources import SERVICES, VOLUMES
from moyai.lifecycle import backup as backups
from moyai.lifecycle import up as building
from moyai.lifecycle.backup import SNAPSHOT, BackupManifest
from moyai.lifecycle.backup.encryption import Opener
from moyai.lifecycle.clusters import open_api, set_aside
from moyai.lifecycle.etcd_data import EtcdData, make_etcd_data
from moyai.lifecycle.record import Record
from moyai.lifecycle.record_files import RESTORING
from moyai.lifecycle.record_format import ENCRYPTION_KEY
from moyai.lifecycle.up import UpResult
from moyai.lifecycle.work import locked, working
from moyai.plan.changes import classify
from moyai.plan.graph import Plan
from moyai.plan.load_balancer.names import service_of_name
from moyai.plan.nodes import CONTROL_PLANE_POOL, pool_of_node
from moyai.plan.observed import owns
from moyai.plan.rotation import Rotated
from moyai.spec.load import dump
from moyai.spec.model import Cluster

#: Below the record's folder; gone once the cluster is restored.
_FOLDER = RESTORING
#: Below the folder of all restores: what is being read.
_READING = "reading"
#: Fields of a cluster that a restore may change: where the cluster is, and what its machines are made from.
_FREE = frozenset(
    f"spec.{field}"
    for field in (
        "cloud", "image", "controlPlane.flavor", "controlPlane.zone", "network.externalNetwork", "network.dns",
        "loadBalancer.provider", "loadBalancer.floatingNetwork", "loadBalancer.createMonitor", "volumes.fencing",
    )
)  # fmt: skip


@dataclass(frozen=True)
class RestoreWish:
    """What a restore is to change. ``cloud``: its name, empty for that of the backup. ``spec``: instead of the backup's."""

    cloud: str = ""
    spec: Cluster | None = None


@dataclass(frozen=True)
class RestoreResult:
    """``unknown``: what the cloud has of the cluster and the backup does not know, a line for each."""

    up: UpResult
    manifest: BackupManifest
    unknown: tuple[str, ...] = ()


def preview(
    file: Path, opener: Opener, *, wanted: RestoreWish, connect: Callable[[str], Cloud], paths: Paths, clock: Clock
) -> Plan:
    """The plan of ``restore``, without doing anything. Raises what ``restore`` raises before it does something."""
    with staged_backup(file, opener, wanted=wanted, paths=paths) as staged:
        cloud = connect(staged.cluster.spec.cloud)
        _refuse_living(staged, cloud, paths=paths)
        return building.preview(staged.cluster, cloud, paths=staged.known(paths), clock=clock)


def restore(
    file: Path,
    opener: Opener,
    *,
    wanted: RestoreWish,
    connect: Callable[[str], Cloud],
    paths: Paths,
    reporter: Reporter,
    clock: Clock,
    etcdutl: Callable[[], Path],
) -> RestoreResult:
    """Make the cluster of a backup again. ``etcdutl``: gets the program.

    UsageError, with nothing changed, for a file that cannot be read, and where the cluster or its control plane exists.
    """
    with staged_backup(file, opener, wanted=wanted, paths=paths) as staged:
        name, cloud = staged.cluster.name, connect(staged.cluster.spec.cloud)
        program = etcdutl()
        with locked(paths, name):
            if not staged.begun(paths):
                with reporter.step("look at the backup and the cloud"):
                    _refuse_living(staged, cloud, paths=paths)
                    # a snapshot that etcd does not take, and a plan that is refused, leave nothing behind
                    first = building.preview(staged.cluster, cloud, paths=staged.paths, clock=clock).nodes[0]
                    staged.data(program, first.name, first.address)
                staged.put_on_record(paths)
    record = Record.open(paths, name, clock=clock)
    assert record is not None
    folder = record.folder / _FOLDER

    def data(node: str, address: str) -> EtcdData:
        return snapshot_data(folder.parent, program, node=node, address=address)

    result = building.up(record.cluster, cloud, paths=paths, reporter=reporter, clock=clock, data=data)
    with working(paths, name, command="moyai restore", clock=clock, tell=reporter.note) as work:
        unknown = tuple(_unknown(cloud, record.uid, api=open_api(record)))
        shutil.rmtree(folder, ignore_errors=True)
        record = Record.open(paths, name, clock=clock, mirror=work)
        assert record is not None
        record.restored()
    for line in unknown:
        reporter.note(line)
    return RestoreResult(result, staged.manifest, unknown)


@dataclass(frozen=True)
class StagedBackup:
    """A backup that was read, as a record that counts nowhere yet. ``paths``: where it lies."""

    paths: Paths
    manifest: BackupManifest
    cluster: Cluster

    @property
    def folder(self) -> Path:
        return self.paths.clusters / self.cluster.name

    def begun(self, paths: Paths) -> bool:
        """Whether an earlier run has put this very backup on record."""
        record = Record.open(paths, self.cluster.name)
        return record is not None and record.uid == self.manifest.uid and record.restores == self.manifest.made

    def known(self, paths: Paths) -> Paths:
        return paths if self.begun(paths) else self.paths

    def data(self, etcdutl: Path, name: str, address: str) -> EtcdData:
        return snapshot_data(self.folder, etcdutl, node=name, address=address)

    def put_on_record(self, paths: Paths) -> None:
        """The record that was there is kept aside: it may know what the backup does not."""
        target = paths.make_state("clusters") / self.cluster.name
        if target.exists():
            paths.make_state("restores")
            aside = set_aside(target)
            shutil.rmtree(aside, ignore_errors=True)
            rename_durably(target, aside)
        rename_durably(self.folder, target)


@contextmanager
def staged_backup(file: Path, opener: Opener, *, wanted: RestoreWish, paths: Paths) -> Generator[StagedBackup]:
    """The backup as a record in a folder of its own, which is gone afterwards. What a killed run left there goes first: there
    are keys in it."""
    restores = paths.make_state("restores")
    with file_lock(restores / ".lock", _refuse_second):
        shutil.rmtree(restores / _READING, ignore_errors=True)
        yield from _read(file, opener, own=Paths(paths.cache, restores / _READING), wanted=wanted)


def _refuse_second(holder: str) -> None:
    raise Terminal(f"another moyai ({holder}) restores a backup", hint="wait until it is done")


def _read(file: Path, opener: Opener, *, own: Paths, wanted: RestoreWish) -> Generator[StagedBackup]:
    place = own.make_state("clusters") / SNAPSHOT
    streams: list[BinaryIO] = []

    def into(entry: str) -> BinaryIO | None:
        if entry != SNAPSHOT:
            return None
        streams.append(os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"))
        return streams[-1]

    try:
        with naming(place):
            try:
                content = backups.read(file, opener, into=into)
            finally:
                for stream in streams:
                    stream.close()
        yield _stage(content, own, file=file, wanted=wanted)
    finally:
        shutil.rmtree(own.state, ignore_errors=True)


def _stage(content: backups.Content, paths: Paths, *, file: Path, wanted: RestoreWish) -> StagedBackup:
    """The record of a cluster that has never answered: with its authorities, its spec and its allocations, without what it had
    in a cloud. Machines are made with new tokens and new credentials."""
    manifest = content.manifest
    if not (paths.clusters / SNAPSHOT).exists():
        raise UsageError(
            f"{file} has no snapshot of etcd: a cluster cannot be restored from it", hint="`moyai join NAME --file FILE`"
        )
    # whoever has the public key of a backup's owner can make a file that opens
    if not is_dns_label(manifest.cluster):
        raise UsageError(f"backup {file} is of {manifest.cluster!r}, which is no cluster's name")
    folder = paths.clusters / manifest.cluster
    without_record = UsageError(f"backup {file} has no record of cluster {manifest.cluster}")
    try:
        record = json.loads(content.files["record.json"])
        if record.get("rotation", {}).get("what") == Rotated.CREDENTIALS:
            # the machines get new ones anyway
            record["rotation"] = {}
        secrets = json.loads(content.files["secrets.json"])
        record |= {"ready": "", "apiAddress": "", "objects": [], "restores": manifest.made}
        secrets = {name: value for name, value in secrets.items() if name == ENCRYPTION_KEY}
        if (record["name"], record["uid"]) != (manifest.cluster, manifest.uid):
            raise ValueError
        if not all(isinstance(value, str) for value in secrets.values()):
            raise TypeError
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        raise without_record from None
    for name, data in content.files.items():
        write_private(folder / name, data)
    write_private(folder / "secrets.json", json.dumps(secrets, indent=1))
    write_private(folder / "record.json", json.dumps(record, indent=1))
    snapshot = folder / _FOLDER / SNAPSHOT
    snapshot.parent.mkdir(mode=0o700)
    (paths.clusters / SNAPSHOT).rename(snapshot)
    try:
        opened = Record.open(paths, manifest.cluster)
        assert opened is not None
        had = opened.cluster
    except MoyaiError:
        raise without_record from None
    cluster = _changed(had, wanted)
    opened.set_spec(dump(cluster))
    return StagedBackup(paths, manifest, cluster)


def _changed(cluster: Cluster, wanted: RestoreWish) -> Cluster:
    """The spec of the restored cluster. UsageError for one that is of another cluster, or that the backup cannot become."""
    changed = wanted.spec or cluster
    if changed.name != cluster.name:
        raise UsageError(f"metadata.name: {changed.name!r}, should be {cluster.name!r}, whose backup this is")
    if wanted.cloud:
        changed = changed.in_cloud(wanted.cloud)
    for change in classify(dump(cluster), dump(changed)):
        if change.kind == "fixed" and change.path not in _FREE:
            raise UsageError(f"{change.path}: {change.after!r}, should be {change.before!r} as in the backup ({change.reason})")
    return changed


def _refuse_living(staged: StagedBackup, cloud: Cloud, *, paths: Paths) -> None:
    """UsageError where the cluster lives, or its control plane's machines are there, or its name is another one's."""
    name, uid = staged.cluster.name, staged.manifest.uid
    if staged.begun(paths):
        return
    there = Record.open(paths, name)
    if there is not None and there.uid != uid:
        raise UsageError(
            f"this machine knows another cluster {name} ({there.uid}) than that of the backup ({uid})",
            hint=f"`moyai down {name}` removes it, or use another state folder (MOYAI_STATE_DIR)",
        )
    api = open_api(there) if there else None
    if api is not None and api.ready():
        raise UsageError(f"cluster {name} lives: its API at {api.server} answers", hint="a backup replaces no living cluster")
    planes = sorted(
        one.name for one in cloud.machines.servers(tag=cluster_tag(uid)) if pool_of_node(one.name, name) == CONTROL_PLANE_POOL
    )
    if planes:
        raise UsageError(
            f"cluster {name} has machines of its control plane: {', '.join(planes)}",
            hint="mend them (`moyai up`), or delete them in the cloud if they are lost for good",
        )


def snapshot_data(record: Path, etcdutl: Path, *, node: str, address: str) -> EtcdData:
    """etcd's data of a restored cluster, for this member. ``record``: the folder of its record."""
    folder = record / _FOLDER
    return make_etcd_data(folder / SNAPSHOT, folder / "etcd.tar.gz", etcdutl=etcdutl, name=node, address=address)


def _unknown(cloud: Cloud, uid: str, *, api: KubeApi | None) -> Iterable[str]:
    """Load balancers and volumes of the cluster that no Service and no PersistentVolume of the restored cluster has."""
    if api is None:
        return
    offered = cloud.capabilities()
    try:
        if Capability.LOAD_BALANCERS in offered:
            services = set(map(object_key, api.list(SERVICES)))
            for balancer in cloud.load_balancers.load_balancers():
                users = {service_of_name(one) for one in (balancer.name, *balancer.tags)}
                if owns(uid, balancer) and services.isdisjoint(users):
                    yield f"load balancer {balancer.name} ({balancer.id}) is of no Service that the backup knows: it stays"
        if Capability.DISKS in offered:
            handles = {parse_volume(one).handle for one in api.list(VOLUMES)}
            for volume in cloud.disks.volumes():
                if volume.metadata.get(CLUSTER_TAG) == uid and volume.id not in handles:
                    yield f"volume {volume.name} ({volume.id}) is of no claim that the backup knows: it stays"
    except MoyaiError as error:
        yield f"what the backup does not know could not be listed to its end, and stays: {error}"

"""``restore --rehearse``: whether a backup can be restored, tried on a throw-away machine.

A cluster of another name and UID, with a network of its own, begins with the backup's etcd. Its one machine runs etcd and the
API server alone: nothing schedules, nothing controls, so nothing of the backup acts on the cloud or the living cluster. Always
holds: the living cluster and its record are not touched; the machine goes in the end, whatever came out, and what a killed
rehearsal left goes with the next one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from moyai.cloud.capabilities import Cloud
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, Terminal
from moyai.core.files import rename_durably, write_private
from moyai.core.ids import new_uid
from moyai.core.locks import file_lock
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.core.waiting import NotYet, until
from moyai.kube.objects.meta import part, text
from moyai.kube.quick import KubeApi
from moyai.kube.resources import CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, SECRETS, SERVICE_ACCOUNTS, SERVICES, VOLUMES, Resource
from moyai.lifecycle import down as teardown
from moyai.lifecycle import up as building
from moyai.lifecycle.backup import BackupManifest, schedule
from moyai.lifecycle.backup.encryption import Opener
from moyai.lifecycle.clusters import open_api
from moyai.lifecycle.etcd_data import EtcdData
from moyai.lifecycle.record import Record
from moyai.lifecycle.restore_cluster import RestoreWish, snapshot_data, staged_backup
from moyai.lifecycle.rounds import Start
from moyai.plan import steps as s
from moyai.plan.graph import ordered
from moyai.spec.load import dump
from moyai.spec.model import Cluster, Metadata

#: Below the state folder.
_FOLDER = "rehearsals"
#: Steps of a plan that a machine without controllers needs not, or never comes to the end of.
_LEFT_OUT = (
    s.CreateCredential, s.HandOverCredential, s.WaitNodes, s.WaitAddon, s.RevokeTokens, s.MarkControlPlane, s.SetReclaimPolicy,
    s.SetCopies, s.SetProxy, s.ApplyAddon,
)  # fmt: skip
#: What is counted: all of it must be readable.
_COUNTED: tuple[Resource, ...] = (NAMESPACES, SERVICE_ACCOUNTS, SECRETS, CONFIG_MAPS, SERVICES, DEPLOYMENTS, VOLUMES)
_READ_TIMEOUT = 60.0


@dataclass(frozen=True)
class Rehearsal:
    """``found``: kind of objects → how many there are. ``seconds``: from the first call to the answers."""

    manifest: BackupManifest
    found: tuple[tuple[str, int], ...]
    seconds: float


def rehearse(
    file: Path,
    opener: Opener,
    *,
    cloud_name: str,
    connect: Callable[[str], Cloud],
    paths: Paths,
    reporter: Reporter,
    clock: Clock,
    etcdutl: Callable[[], Path],
) -> Rehearsal:
    """Restore the backup onto a throw-away machine, look whether it is whole, and remove the machine.

    UsageError where the file cannot be read; Terminal where what was restored is not whole.
    """
    own = Paths(paths.cache, paths.make_state(_FOLDER))
    with file_lock(own.state / ".lock", _refuse_second):
        _clean(own, connect, reporter=reporter, clock=clock)
        with staged_backup(file, opener, wanted=RestoreWish(cloud_name), paths=paths) as staged:
            cloud, program = connect(staged.cluster.spec.cloud), etcdutl()
            record = _record(staged.folder, staged.cluster, own=own, made=staged.manifest.made)
            manifest = staged.manifest
        began = clock.monotonic()
        try:
            found = _restored(record, cloud, own=own, program=program, reporter=reporter, clock=clock)
            seconds = clock.monotonic() - began
        finally:
            _remove(record, cloud, own=own, reporter=reporter, clock=clock)
    known = Record.open(paths, manifest.cluster)
    if known is not None and known.uid == manifest.uid:
        schedule.note(known, **{"rehearsed": clock.now().isoformat(timespec="seconds"), "rehearsed file": file.name})
    return Rehearsal(manifest, found, seconds)


def _refuse_second(holder: str) -> None:
    raise Terminal(f"another moyai ({holder}) rehearses a restore", hint="wait until it is done")


def _record(folder: Path, cluster: Cluster, *, own: Paths, made: str) -> Record:
    """The record of the throw-away cluster: the backup's keys, and nothing of its machines."""
    uid = new_uid()
    name = f"rehearsal-{uid}"
    spec = cluster.spec
    plane = spec.control_plane.model_copy(update={"replicas": 1, "endpoint": "single"})
    small = spec.model_copy(update={"control_plane": plane, "node_pools": []})
    changed = cluster.model_copy(update={"metadata": Metadata(name=name), "spec": small})
    known = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    known |= {"name": name, "uid": uid, "spec": dump(changed), "seats": {}, "restores": made, "upgrade": {}, "rotation": {}}
    target = own.make_state("clusters") / name
    # no name of a cluster begins with a dot: what a kill leaves here is no record, and goes with the next rehearsal
    aside = target.with_name(f".{name}")
    shutil.copytree(folder, aside)
    aside.chmod(0o700)
    write_private(aside / "record.json", json.dumps(known, indent=1))
    rename_durably(aside, target)
    record = Record.open(own, name)
    assert record is not None
    return record


def _restored(
    record: Record, cloud: Cloud, *, own: Paths, program: Path, reporter: Reporter, clock: Clock
) -> tuple[tuple[str, int], ...]:
    def data(node: str, address: str) -> EtcdData:
        return snapshot_data(record.folder, program, node=node, address=address)

    with reporter.step("look at the cloud for a throw-away machine"):
        start = _bare(building.look(record.cluster, cloud, paths=own, clock=clock))
    building.carry_out(start, cloud, record=record, reporter=reporter, clock=clock, data=data, suffix="")
    api = open_api(record)
    if api is None:
        raise Terminal("the throw-away machine has no kubeconfig")
    with reporter.step("read what was restored") as progress:
        return tuple(_counts(api, clock=clock, say=progress.progress))


def _bare(start: Start) -> Start:
    """The same without what needs controllers or reaches the cloud from inside."""
    steps = ordered(step for step in start.plan.steps if not isinstance(step, _LEFT_OUT))
    plan = replace(start.plan, steps=steps)
    return replace(start, plan=plan, facts=replace(start.facts, plan=plan, addons=(), rehearses=True))


def _counts(api: KubeApi, *, clock: Clock, say: Callable[[str], None]) -> Iterator[tuple[str, int]]:
    """Terminal where a kind cannot be read, such as Secrets without their key."""
    for kind in _COUNTED:
        found: list[int] = []

        def look(kind: Resource = kind, found: list[int] = found) -> NotYet | None:
            found[:] = [len(api.list(kind))]
            return None

        try:
            until(look, clock=clock, timeout=_READ_TIMEOUT, pause=1.0, on_wait=say)
        except MoyaiError as error:
            raise Terminal(f"the backup was restored, but its {kind.plural} cannot be read: {error.message}") from None
        if kind is NAMESPACES and not found[0]:
            raise Terminal("the backup was restored, but it has no namespaces")
        yield kind.plural, found[0]
    said = text(part(api.get(CONFIG_MAPS, "kubeadm-config", namespace="kube-system"), "data"), "ClusterConfiguration")
    if not said:
        raise Terminal("the backup was restored, but kubeadm's configuration is not in it")


def _clean(own: Paths, connect: Callable[[str], Cloud], *, reporter: Reporter, clock: Clock) -> None:
    """What a killed rehearsal left."""
    for name in Record.names(own):
        record = Record.open(own, name)
        if record is not None:
            _remove(record, connect(record.cloud), own=own, reporter=reporter, clock=clock)
    shutil.rmtree(own.clusters, ignore_errors=True)


def _remove(record: Record, cloud: Cloud, *, own: Paths, reporter: Reporter, clock: Clock) -> None:
    """The removal must not ask the restored API: its Services and volumes are the living cluster's."""
    (record.folder / "kubeconfig").unlink(missing_ok=True)
    with reporter.step(f"remove {record.name}"):
        target, known = teardown.target_of(record.name, own, cloud=cloud)
        report = teardown.down(target, known, cloud=cloud, paths=own, reporter=reporter, clock=clock)
    left = [f"{one.kind} {one.name}" for one in report.entries if one.outcome == "left"]
    if left:
        raise Terminal(f"{', '.join(left)} of the rehearsal could not be removed", hint="the next rehearsal tries again")
    shutil.rmtree(record.folder, ignore_errors=True)

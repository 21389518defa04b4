"""The care of etcd: how full each member's database is, how quickly its disk syncs, and giving room back that is not used.

Always holds: one member at a time is defragmented, since it answers nobody meanwhile; never the leader where another member can
lead; and only while the others are a majority without it. Sources: etcdctl's output in JSON, etcd's metrics, and
https://etcd.io/docs/latest/op-guide/maintenance/.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from moyai.agent import manifests as agent
from moyai.ccm import manifests as ccm
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, Retriable, Terminal
from moyai.core.progress import Progress, Reporter
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import parse_node
from moyai.kube.objects.meta import part, text, text_map
from moyai.kube.quick import KubeApi
from moyai.kube.resources import KUBE_SYSTEM, NODES, PODS
from moyai.lifecycle.etcd_members import Etcd, EtcdMember, etcdctl
from moyai.plan.cluster.control_planes import majority

#: Of the quota: above this part a database is reported. At the quota etcd takes no more writes.
FULL = 0.8
#: Seconds: etcd's heartbeat. A disk that often needs longer for a sync makes followers call an election.
SLOW_SYNC = 0.1
#: Seconds that a member may take for its defragmentation; for a member to be healthy, or another one to lead.
DEFRAGMENT_TIMEOUT, HEALTH_TIMEOUT = 600.0, 60.0
_PAUSE = 1.0
_NO_SPACE = "NOSPACE"
_METRICS = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:2381/metrics', timeout=3).read().decode())"
_BUCKET = re.compile(r'^etcd_disk_wal_fsync_duration_seconds_bucket\{le="([^"]+)"\} (\d+)$', re.MULTILINE)
#: Pods that are in the network of their control plane's machine, and have Python.
_HELPERS = frozenset({ccm.NAME, agent.NAME})


@dataclass(frozen=True)
class EtcdStatus:
    """One member. ``size``: bytes of its database on disk; ``in_use``: of them with content; ``quota``: how many it may have.

    ``sync_p99``: seconds within which 99 of 100 syncs of its log were done since it started; None where that is not known.
    """

    name: str
    version: str
    leader: bool
    size: int
    in_use: int
    quota: int
    alarms: tuple[str, ...] = ()
    sync_p99: float | None = None

    @property
    def full(self) -> bool:
        return bool(self.quota) and self.size >= FULL * self.quota

    @property
    def problems(self) -> Iterator[str]:
        for alarm in self.alarms:
            yield f"etcd of {self.name} has raised an alarm: {alarm}"
        if self.full:
            free = self.size - self.in_use
            help_ = (
                f"`moyai etcd defragment` gives {free >> 20} MiB back"
                if free >= self.size // 4
                else "delete objects that are not needed, then `moyai etcd defragment`"
            )
            yield (
                f"etcd's database on {self.name} has {self.size >> 20} of {self.quota >> 20} MiB, and takes no writes once it "
                f"is full: {help_}"
            )

    @property
    def notes(self) -> Iterator[str]:
        if self.sync_p99 is not None and self.sync_p99 >= SLOW_SYNC:
            yield (
                f"the disk of {self.name} is slow for etcd: one of 100 syncs takes {1000 * self.sync_p99:.0f} ms or more, and "
                f"from {1000 * SLOW_SYNC:.0f} ms on members may take each other for dead"
            )


def ready_planes(api: KubeApi) -> tuple[str, ...]:
    """Names of the control planes that are Ready."""
    nodes = map(parse_node, api.list(NODES))
    return tuple(sorted(node.name for node in nodes if node.control_plane and node.ready))


def read_etcd(api: KubeApi, planes: Sequence[str]) -> tuple[EtcdStatus, ...]:
    """Of those members that answer. ``planes``: control planes whose etcds are asked."""
    if not planes:
        return ()
    with ThreadPoolExecutor(len(planes), thread_name_prefix="etcd") as pool:
        asked = [pool.submit(_read, api, plane) for plane in planes]
        return tuple(found for one in asked if (found := one.result()) is not None)


def _read(api: KubeApi, plane: str) -> EtcdStatus | None:
    try:
        return parse_status(plane, etcdctl(api, plane, words=("endpoint", "status")), sync_p99=_sync(api, plane))
    except (MoyaiError, ValueError, KeyError, IndexError, TypeError):
        return None


def parse_status(name: str, found: Any, *, sync_p99: float | None = None) -> EtcdStatus:
    """Of what etcdctl prints for ``endpoint status``."""
    status = found[0]["Status"]
    size = int(status.get("dbSize", 0))
    return EtcdStatus(
        name=name,
        version=str(status["version"]),
        leader=status["leader"] == status["header"]["member_id"],
        size=size,
        in_use=int(status.get("dbSizeInUse", size)),
        quota=int(status.get("dbSizeQuota", 0)),
        alarms=tuple(_alarm(str(one)) for one in cast("list[Any]", status.get("errors") or ())),
        sync_p99=sync_p99,
    )


def _alarm(said: str) -> str:
    """Of ``memberID:1234 alarm:NOSPACE``."""
    return said.partition("alarm:")[2].strip() or said.strip()


def quantile(metrics: str, part_of: float) -> float | None:
    """The upper bound of the bucket in which this part of all syncs ends, in seconds; None where there is none."""
    buckets = [(float(bound), int(count)) for bound, count in _BUCKET.findall(metrics)]
    total = max((count for _, count in buckets), default=0)
    return next((bound for bound, count in sorted(buckets) if total and count >= part_of * total), None)


def _sync(api: KubeApi, plane: str) -> float | None:
    """As etcd's own metrics say, which only the machine itself can ask."""
    with suppress(MoyaiError, ValueError, AttributeError):
        for pod in api.list(PODS, namespace=KUBE_SYSTEM, fields=f"spec.nodeName={plane}"):
            helper = text_map(pod, "metadata", "labels").get("app.kubernetes.io/name") in _HELPERS
            if helper and part(pod, "spec").get("hostNetwork") and text(part(pod, "status"), "phase") == "Running":
                name = text(part(pod, "metadata"), "name")
                return quantile(api.execute(KUBE_SYSTEM, name, command=["python3", "-c", _METRICS], timeout=5.0), 0.99)
    return None


# ---- defragmentation


def defragment(api: KubeApi, planes: Sequence[str], *, clock: Clock, reporter: Reporter) -> tuple[EtcdStatus, ...]:
    """Give back what no content needs, one member after the other, the leader last and after another one leads; the state
    afterwards. Where there is room again, etcd's alarm that kept it from writes ends. It may be done again at any time.

    ``planes``: the control planes that are Ready. Terminal where a member joins, or the others are no majority that answers.
    """
    etcd = Etcd(api, planes)
    members = etcd.members()
    if any(one.learner for one in members):
        raise Terminal("another control plane is joining etcd", hint="wait until `moyai status` shows it as a voter")
    if missing := sorted({one.name for one in members} - set(planes)):
        raise Terminal(f"etcd has members whose control planes are not Ready: {', '.join(missing)}", hint="`moyai up` first")
    leader = etcd.leader()
    for member in sorted(members, key=lambda one: (one.id == leader, one.name)):
        with reporter.step(f"defragment etcd of {member.name}") as progress:
            _defragment(etcd, member=member, members=members, clock=clock, progress=progress)
    after = read_etcd(api, planes)
    if any(_NO_SPACE in one.alarms for one in after) and not any(one.full for one in after):
        etcd.disarm()
        after = read_etcd(api, planes)
    return after


def _defragment(etcd: Etcd, *, member: EtcdMember, members: Sequence[EtcdMember], clock: Clock, progress: Progress) -> None:
    others = [one for one in members if one != member]

    def may() -> NotYet | None:
        well = etcd.reading(others)
        if others and len(well) < majority(len(members)):
            return NotYet(f"{len(well)} of the {len(others)} other members answer, which is no majority")
        if not others or etcd.leader() != member.id:
            return None
        target = min((one for one in others if one.id in well), key=lambda one: one.name)
        with suppress(MoyaiError):
            etcd.move_leader(member, target)
        return NotYet(f"{target.name} does not lead yet")

    def well() -> NotYet | None:
        return None if etcd.reading([member]) else NotYet("it does not answer again yet")

    _until(may, member, clock=clock, progress=progress)
    progress.progress("it answers nobody meanwhile" if others else "the API does not answer meanwhile")
    etcd.defragment(member, timeout=DEFRAGMENT_TIMEOUT)
    _until(well, member, clock=clock, progress=progress)


def _until(look: Callable[[], NotYet | None], member: EtcdMember, *, clock: Clock, progress: Progress) -> None:
    def late(seen: NotYet) -> Terminal:
        return Terminal(
            f"etcd of {member.name} was not defragmented: waited {HEALTH_TIMEOUT:.0f} s: {seen.missing}",
            hint="`moyai status` shows the control planes",
        )

    until(look, clock=clock, timeout=HEALTH_TIMEOUT, pause=_PAUSE, retry=Retriable, on_wait=progress.progress, late=late)


def all_problems(found: Iterable[EtcdStatus]) -> Iterator[str]:
    for one in found:
        yield from one.problems


def all_notes(found: Iterable[EtcdStatus]) -> Iterator[str]:
    for one in found:
        yield from one.notes

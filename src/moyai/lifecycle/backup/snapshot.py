"""A snapshot of a living cluster's etcd, through its API: a pod on a control plane reads it from that machine's etcd.

Always holds: what is passed on counts only if iterating ends without an error, for then it has the length that was announced
and the hash that etcd has put behind it; the pod is deleted afterwards, whatever happens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources

from moyai.core.clock import Clock
from moyai.core.errors import Conflict, MoyaiError, Retriable, Terminal
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import parse_node, parse_pod
from moyai.kube.quick import KubeApi
from moyai.kube.resources import NODES, PODS
from moyai.lifecycle.etcd_members import ETCD_PKI
from moyai.lifecycle.plane_pod import NAMESPACE, own_image, plane_pod

#: Seconds for the pod to run; between two words of etcd.
POD_TIMEOUT, WORD_TIMEOUT = 60.0, 60.0
_PAUSE = 0.3
_HASH = hashlib.sha256().digest_size
#: Bytes of the line before the snapshot, at most.
_LINE = 1024


@dataclass(frozen=True)
class EtcdSnapshot:
    """``size``: in bytes. ``revision``: everything up to it is in the snapshot. ``version``: etcd's. ``pieces`` raise Retriable
    where the snapshot is not whole, and what the API's errors are."""

    size: int
    revision: int
    version: str
    pieces: Iterator[bytes] = field(repr=False)


@contextmanager
def etcd_snapshot(api: KubeApi, *, clock: Clock, progress: Progress) -> Generator[EtcdSnapshot]:
    """Of the first control plane that gives one. Terminal where none does."""
    nodes = [node for node in map(parse_node, api.list(NODES)) if node.control_plane and node.ready]
    why = "none is Ready"
    for node in sorted(node.name for node in nodes):
        pod = f"backup-{node}"
        try:
            try:
                _start(api, node, pod=pod, clock=clock, progress=progress)
                found = _opened(api, pod)
            except MoyaiError as error:
                why = f"{node}: {error.message}"
                continue
            progress.progress(f"{found.size >> 10} KiB from {node}, revision {found.revision}")
            yield found
            return
        finally:
            with suppress(MoyaiError):  # it ends by itself
                api.delete(PODS, pod, namespace=NAMESPACE, grace=0)
    raise Terminal(f"no control plane gives a snapshot of etcd: {why}", hint="`moyai status` shows the control planes")


def _start(api: KubeApi, node: str, *, pod: str, clock: Clock, progress: Progress) -> None:
    def look() -> NotYet | None:
        with suppress(Conflict):
            made = plane_pod(
                pod,
                api.get(NODES, node),
                image=own_image(api),
                container="backup",
                folders=(ETCD_PKI,),
                read_only=True,
                sees_processes=False,
            )
            api.create(PODS, made, namespace=NAMESPACE)
        found = parse_pod(api.get(PODS, pod, namespace=NAMESPACE))
        if found.finished or found.deleting:
            # of an earlier run
            api.delete(PODS, pod, namespace=NAMESPACE, grace=0)
        why = next((f" ({one.message or one.ended})" for one in found.containers if one.ended), "") or found.message
        return None if found.phase == "Running" else NotYet(f"pod {pod} is {found.phase or 'not started'}{why}")

    # of an earlier run: it may end in the middle of the work
    api.delete(PODS, pod, namespace=NAMESPACE, grace=0)
    until(
        look,
        clock=clock,
        timeout=POD_TIMEOUT,
        pause=_PAUSE,
        on_wait=progress.progress,
        late=lambda seen: Retriable(f"waited {POD_TIMEOUT:.0f} s: {seen.missing}"),
    )


def _opened(api: KubeApi, pod: str) -> EtcdSnapshot:
    program = (resources.files("moyai.bootstrap") / "data" / "etcd_snapshot.py").read_text(encoding="utf-8")
    pieces = api.output(NAMESPACE, pod, command=["python3", "-I", "-c", program], timeout=WORD_TIMEOUT)
    line = b""
    for piece in pieces:
        line += piece
        if b"\n" in line or len(line) > _LINE:
            break
    head, _, rest = line.partition(b"\n")
    try:
        said = json.loads(head)
        size, revision, version = int(said["size"]), int(said["revision"]), str(said["version"])
    except (ValueError, KeyError, TypeError):
        raise Retriable(f"pod {pod} sends no snapshot") from None
    return EtcdSnapshot(size, revision, version, _whole(rest, pieces, size=size))


def _whole(first: bytes, others: Iterator[bytes], *, size: int) -> Iterator[bytes]:
    """All pieces. Retriable where they are not ``size`` bytes with the hash of what is before it at their end."""
    digest, behind, seen = hashlib.sha256(), b"", 0

    def pieces() -> Iterator[bytes]:
        yield first
        yield from others

    for piece in pieces():
        seen += len(piece)
        known = behind + piece
        digest.update(known[:-_HASH])
        behind = known[-_HASH:]
        yield piece
    if seen != size or digest.digest() != behind:
        raise Retriable(f"the snapshot is not whole: {seen} of {size} bytes, or etcd's hash is another")

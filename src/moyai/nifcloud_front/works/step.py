"""What a step of a work is, and what all steps share.

A step gets the work as it is on disk and returns what comes next. It may have run before: the process that ran it died before
its end was on disk. So it looks for what it would make, by the tag or by the name that the object below has from the front's
uid, before it makes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from moyai.cloud.capabilities import Cloud
from moyai.cloud.model import FloatingIP
from moyai.nifcloud_front.pace import Pace, duration
from moyai.nifcloud_front.store.front_store import FrontStore, StoredRow, Transaction
from moyai.nifcloud_front.store.rows import PaceRow, WorkRow

#: Tag of every object that the front makes in the cloud below.
FRONT_TAG = "nifcloud-front"
Change = Callable[[Transaction], None]


class TaggedBelow(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def tags(self) -> tuple[str, ...]: ...


T = TypeVar("T", bound=TaggedBelow)
R = TypeVar("R", bound=StoredRow)


def nothing(_: Transaction) -> None:
    """No change of the rows."""


def changed(kind: type[StoredRow], uid: str, **fields: object) -> Change:
    """A change of the row as it is then, where there still is one."""

    def change(tx: Transaction) -> None:
        row: Any = tx.get(kind, uid)
        if row is not None:
            tx.put(replace(row, **fields))

    return change


@dataclass(frozen=True)
class Again:
    """The work goes on with ``step``, after ``seconds``. ``change`` is made together with it."""

    step: str
    seconds: float = 0.0
    change: Change = nothing


@dataclass(frozen=True)
class WorkDone:
    """The work has ended. ``change`` is made together with its end.

    ``seen``: the row that the work went by; where it is another by now, the work begins again.
    """

    change: Change = nothing
    seen: StoredRow | None = None


@dataclass(frozen=True)
class WorkContext:
    """``now``: seconds since 1970. ``shared``: held while something is made below that several objects use."""

    store: FrontStore
    cloud: Cloud
    pace: Pace
    now: Callable[[], float]
    shared: threading.RLock = field(default_factory=threading.RLock)

    def row(self, kind: type[R], uid: str) -> R | None:
        with self.store.transaction() as tx:
            return tx.get(kind, uid)

    def early(self, work: WorkRow) -> float:
        """Seconds until the work may be done."""
        said = self.row(PaceRow, PaceRow.uid)
        scale = said.scale if said else self.pace.scale
        return max(0.0, work.began + duration(work.kind, work.verb) * scale - self.now())

    def when_due(self, work: WorkRow, change: Change, *, step: str) -> Again | WorkDone:
        """The end of a work, or the wait for it."""
        left = self.early(work)
        return Again(step, left) if left > 0 else WorkDone(change)


Step = Callable[[WorkContext, WorkRow], Again | WorkDone]


def tag(uid: str) -> str:
    return f"{FRONT_TAG}={uid}"


def tags(uid: str) -> tuple[str, str]:
    return FRONT_TAG, tag(uid)


def own_addresses(context: WorkContext, uid: str) -> list[FloatingIP]:
    """Floating IPs of a uid, by their tag, or by the description where a crash left one without tags."""
    addresses = context.cloud.addresses
    return addresses.floating_ips(tag=tag(uid)) or [one for one in addresses.floating_ips() if one.description == uid]


def mine(found: Iterable[T], uid: str) -> T | None:
    """The object of a uid, by its tag, or by its name where a crash left it without tags."""
    candidates = [one for one in found if tag(uid) in one.tags or one.name.partition(".")[0] == uid]
    return candidates[0] if candidates else None

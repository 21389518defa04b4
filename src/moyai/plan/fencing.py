"""Whether a node is taken out of service by force: from what Kubernetes hears and what the cloud says to one decision.

Pure. Fencing lets pods and disks move although nobody has heard the node let go of them, so what always holds: a node is fenced
only when it is silent AND the cloud says that its machine is off; a machine that the cloud calls running, paused, suspended or
under change, and a cloud that does not answer, are never grounds; and a fence is lifted as soon as either of the two no longer
holds. Silence alone costs nothing but a question to the cloud, so it may be short.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moyai.cloud.model import NO_SERVER, Activity, Evidence, Server

#: ``verify``: only what the cloud says is off. ``poweroff``: what does not answer is powered off first. ``off``: never.
Policy = Literal["verify", "poweroff", "off"]
POLICIES: tuple[Policy, ...] = ("verify", "poweroff", "off")

#: ``none``: the node answers. ``wait``: it is silent, but not fenced (yet). ``fence``: it is out of service from now on.
#: ``keep``: the fence stays. ``lift``: it is back in service. ``poweroff``: its machine is powered off, to be fenced.
Action = Literal["none", "wait", "fence", "keep", "lift", "poweroff"]

#: A node is silent for too long when its lease is older than so many periods of renewal: the cloud is asked about it.
_GRACE_PERIODS = 1.5
#: How long a machine that the cloud calls running has to be silent before policy ``poweroff`` ends it (seconds).
POWEROFF_SECONDS = 40.0
#: A silence is reported to users only when it has lasted: a busy machine may be late by moments.
REPORT_SECONDS = 15.0
#: A machine that is being changed soon is something else, if only after the minute that a cloud gives a guest to end.
REPORT_BETWEEN_SECONDS = 120.0
#: A silent node is looked at again after the first number of seconds, after the third once it is silent for the second.
_SHORT_SECONDS, _SHORT_UNTIL, _LONG_SECONDS = 1.0, 60.0, 5.0


@dataclass(frozen=True)
class Heartbeat:
    """The renewals of a node's lease, by the observer's own clock (clocks of two machines are never compared).

    ``since_renewal``: seconds since a renewal was seen to happen, None when none was since the node is watched;
    ``watched_for``: seconds since the node is watched; ``period``: seconds between renewals; ``has_lease``: whether the node
    has a lease at all.
    """

    since_renewal: float | None
    watched_for: float
    period: float = 10.0
    has_lease: bool = True

    @property
    def silence(self) -> float:
        """Seconds without a renewal, at least."""
        return self.watched_for if self.since_renewal is None else self.since_renewal

    @property
    def grace(self) -> float:
        """Seconds that a renewal may take before the node counts as silent."""
        return self.period * _GRACE_PERIODS

    @property
    def overdue(self) -> bool:
        return self.silence > self.grace


@dataclass(frozen=True)
class WatchedNode:
    """A node as Kubernetes has it. ``fenced``: by us. ``silent``, ``answering``: how many of all nodes are; this one counts."""

    ready: bool | None
    fenced: bool
    heartbeat: Heartbeat
    silent: int = 1
    answering: int = 1


@dataclass(frozen=True)
class Decision:
    """``reason``: a clause for users and logs. ``report``: whether users get an event.

    ``requeue_after``: seconds to the next look. ``doubt``: why a silent node is not fenced; the text is the same for as long as
    the reason is, so that it is reported once.
    """

    action: Action
    reason: str
    requeue_after: float
    report: bool = False
    doubt: str = ""


def evidence_of(server: Server | None) -> Evidence:
    """None: the cloud has no such server."""
    return server.evidence if server else NO_SERVER


def suspicious(node: WatchedNode) -> bool:
    """Whether the cloud has to be asked: the node's heartbeat is overdue, or the node is fenced."""
    heartbeat = node.heartbeat
    if node.fenced:
        return True
    return heartbeat.overdue and (heartbeat.has_lease or node.ready is not True)


def decide(node: WatchedNode, machine: Evidence | None, *, policy: Policy) -> Decision:
    """``machine`` None: the cloud did not answer (or was not asked, when nothing is suspicious)."""
    heartbeat = node.heartbeat
    requeue_after = _SHORT_SECONDS if heartbeat.silence < _SHORT_UNTIL else _LONG_SECONDS
    if node.fenced:
        return _fenced(heartbeat, machine, policy=policy)
    if policy == "off" or not suspicious(node):
        due = heartbeat.grace - heartbeat.silence
        return Decision("none", "it answers", due + 0.05 if due > 0 else heartbeat.period)
    report = heartbeat.silence >= max(REPORT_SECONDS, 2 * heartbeat.grace)
    since = f"it has not answered for {heartbeat.silence:.0f} s"
    if machine is None:
        return _wait(since, "and the cloud cannot be asked about its machine", requeue_after=requeue_after, report=report)
    says = f"the cloud says {machine.words}"
    if machine.activity is Activity.OFF:
        return Decision("fence", f"{since}, and {says}", requeue_after)
    if machine.activity is Activity.BETWEEN:
        return _wait(since, f"but {says}", requeue_after=_SHORT_SECONDS, report=heartbeat.silence >= REPORT_BETWEEN_SECONDS)
    if policy == "poweroff" and machine.may_power_off:
        if heartbeat.silence < POWEROFF_SECONDS or node.ready is True:
            return _wait(since, f"but {says}: it is powered off if it stays silent", requeue_after=requeue_after, report=False)
        if node.silent > node.answering:
            why = f"{node.silent} of {node.silent + node.answering} nodes are silent, so this controller may be cut off"
            return _wait(since, f"but {says}, and {why}", requeue_after=requeue_after, report=report)
        return Decision("poweroff", f"{since}, but {says}", requeue_after)
    return _wait(since, f"but {says}", requeue_after=requeue_after, report=report)


def _wait(since: str, doubt: str, *, requeue_after: float, report: bool) -> Decision:
    return Decision("wait", f"{since}, {doubt}", requeue_after, report, doubt)


def _fenced(heartbeat: Heartbeat, machine: Evidence | None, *, policy: Policy) -> Decision:
    if policy == "off":
        return Decision("lift", "fencing is switched off", _LONG_SECONDS, report=True)
    if machine is None:
        return Decision("keep", "the cloud cannot be asked about its machine, which was off", _LONG_SECONDS)
    says = f"the cloud says {machine.words}"
    if machine.activity is not Activity.OFF:
        return Decision("lift", says, _LONG_SECONDS, report=True)
    if heartbeat.since_renewal is not None and not heartbeat.overdue:
        return Decision("lift", f"it answers, although {says}", _LONG_SECONDS, report=True)
    return Decision("keep", says, _LONG_SECONDS)

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

Action = Literal["rest", "wait", "fence", "hold", "lift", "poweroff"]

#: A node that has missed its renewal by half of the period is asked about.
_LATE = 1.5
#: How long a machine that the cloud calls running has to be silent before policy ``poweroff`` ends it (seconds).
POWEROFF_SECONDS = 40.0
#: A silence is told to users only when it has lasted: a busy machine may be late by moments.
TELL_SECONDS = 15.0
#: A machine that is being changed soon is something else, if only after the minute that a cloud gives a guest to end.
TELL_BETWEEN_SECONDS = 120.0
_BRISK_SECONDS, _BRISK_UNTIL, _CALM_SECONDS = 1.0, 60.0, 5.0


@dataclass(frozen=True)
class Pulse:
    """What Kubernetes hears of a node, by the observer's own clock (clocks of two machines are never compared).

    ``heard``: seconds since a renewal of its lease was seen to happen, None when none was since it is watched; ``watched``:
    seconds since then; ``period``: how often it renews; ``leased``: whether it has a lease at all.
    """

    heard: float | None
    watched: float
    period: float = 10.0
    leased: bool = True

    @property
    def silence(self) -> float:
        """For how long nothing was heard, at least."""
        return self.watched if self.heard is None else self.heard

    @property
    def limit(self) -> float:
        return self.period * _LATE

    @property
    def late(self) -> bool:
        return self.silence > self.limit


@dataclass(frozen=True)
class Subject:
    """A node as Kubernetes has it. ``fenced``: by us. ``silent``, ``answering``: how many of all nodes are; this one counts."""

    ready: bool | None
    fenced: bool
    pulse: Pulse
    silent: int = 1
    answering: int = 1


@dataclass(frozen=True)
class Decision:
    """``reason``: a clause for users and logs. ``tell``: whether it is worth an event. ``again``: seconds to the next look.

    ``doubt``: why a silent node is not fenced; the same text for as long as the same holds, so that it is reported once.
    """

    action: Action
    reason: str
    again: float
    tell: bool = False
    doubt: str = ""


def evidence_of(server: Server | None) -> Evidence:
    """None: the cloud has no such server."""
    return server.evidence if server else NO_SERVER


def suspicious(subject: Subject) -> bool:
    """Whether the cloud has to be asked: no word from the node, or it is fenced."""
    pulse = subject.pulse
    if subject.fenced:
        return True
    return pulse.late and (pulse.leased or subject.ready is not True)


def decide(subject: Subject, machine: Evidence | None, *, policy: Policy) -> Decision:
    """``machine`` None: the cloud did not answer (or was not asked, when nothing is suspicious)."""
    pulse = subject.pulse
    again = _BRISK_SECONDS if pulse.silence < _BRISK_UNTIL else _CALM_SECONDS
    if subject.fenced:
        return _fenced(pulse, machine, policy)
    if policy == "off" or not suspicious(subject):
        due = pulse.limit - pulse.silence
        return Decision("rest", "it answers", due + 0.05 if due > 0 else pulse.period)
    tell = pulse.silence >= max(TELL_SECONDS, 2 * pulse.limit)
    since = f"it has not answered for {pulse.silence:.0f} s"
    if machine is None:
        return _wait(since, "and the cloud cannot be asked about its machine", again, tell)
    says = f"the cloud says {machine.words}"
    if machine.activity is Activity.OFF:
        return Decision("fence", f"{since}, and {says}", again)
    if machine.activity is Activity.BETWEEN:
        return _wait(since, f"but {says}", _BRISK_SECONDS, pulse.silence >= TELL_BETWEEN_SECONDS)
    if policy == "poweroff" and machine.may_power_off:
        if pulse.silence < POWEROFF_SECONDS or subject.ready is True:
            return _wait(since, f"but {says}: it is powered off if it stays silent", again, tell=False)
        if subject.silent > subject.answering:
            why = f"{subject.silent} of {subject.silent + subject.answering} nodes are silent, so it may be us who are cut off"
            return _wait(since, f"but {says}, and {why}", again, tell)
        return Decision("poweroff", f"{since}, but {says}", again)
    return _wait(since, f"but {says}", again, tell)


def _wait(since: str, doubt: str, again: float, tell: bool) -> Decision:
    return Decision("wait", f"{since}, {doubt}", again, tell, doubt)


def _fenced(pulse: Pulse, machine: Evidence | None, policy: Policy) -> Decision:
    if policy == "off":
        return Decision("lift", "fencing is switched off", _CALM_SECONDS, tell=True)
    if machine is None:
        return Decision("hold", "the cloud cannot be asked about its machine, which was off", _CALM_SECONDS)
    says = f"the cloud says {machine.words}"
    if machine.activity is not Activity.OFF:
        return Decision("lift", says, _CALM_SECONDS, tell=True)
    if pulse.heard is not None and not pulse.late:
        return Decision("lift", f"it answers, although {says}", _CALM_SECONDS, tell=True)
    return Decision("hold", says, _CALM_SECONDS)

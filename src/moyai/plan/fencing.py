"""Whether a node is taken out of service by force: from what Kubernetes hears and what the cloud says to one decision.

Pure. Fencing lets pods and disks move although nobody has heard the node let go of them, so what always holds: a node is fenced
only when it is silent AND the cloud says that its machine is off; a machine that the cloud calls running, paused, suspended or
under change, and a cloud that does not answer, are never grounds; and a fence is lifted as soon as either of the two no longer
holds. Silence alone costs nothing but a question to the cloud, so it may be short.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moyai.cloud.model import Server

#: ``verify``: only what the cloud says is off. ``poweroff``: what does not answer is powered off first. ``off``: never.
Policy = Literal["verify", "poweroff", "off"]
POLICIES: tuple[Policy, ...] = ("verify", "poweroff", "off")

#: ``between``: neither off for certain nor running, so it will be something else soon.
Power = Literal["off", "running", "between"]
Action = Literal["rest", "wait", "fence", "hold", "lift", "poweroff"]

#: A node that has missed its renewal by half of the period is asked about.
_LATE = 1.5
#: How long a machine that the cloud calls running has to be silent before policy ``poweroff`` ends it (seconds).
POWEROFF_SECONDS = 40.0
#: A silence is told to users only when it has lasted: a busy machine may be late by moments.
TELL_SECONDS = 15.0
#: A machine that is being changed soon is something else, if only after Nova's 60 s for a guest that does not end.
TELL_BETWEEN_SECONDS = 120.0
_BRISK_SECONDS, _BRISK_UNTIL, _CALM_SECONDS = 1.0, 60.0, 5.0

_DARK = frozenset({"shutdown", "crashed"})
#: What Nova does to a machine that is off without turning it on.
_QUIET_TASKS = frozenset(
    {
        "deleting",
        "soft-deleting",
        "image_snapshot",
        "image_snapshot_pending",
        "image_pending_upload",
        "image_uploading",
        "shelving",
        "shelving_image_pending_upload",
        "shelving_image_uploading",
        "shelving_offloading",
    }
)
_AT_REST = frozenset({"stopped", "error", "shelved", "soft-delete"})
#: Paused and suspended machines go on where they were, with their file systems open: for their disks they run.
_ALIVE = frozenset({"active", "paused", "suspended", "rescued", "resized"})


@dataclass(frozen=True)
class Machine:
    """What the cloud says of a node's server. ``words``: for a sentence that begins with "the cloud says"."""

    power: Power
    words: str
    may_power_off: bool = False


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
    """``reason``: a clause for users and logs. ``tell``: whether it is worth an event. ``again``: seconds to the next look."""

    action: Action
    reason: str
    again: float
    tell: bool = False


def judge(server: Server | None) -> Machine:
    """What a server's states mean; None: the cloud has no such server.

    Source: https://docs.openstack.org/nova/2024.2/reference/vm-states.html (vm_state, power_state and task_state).
    """
    if server is None or server.state == "deleted" or server.status == "DELETED":
        return Machine("off", "that its server is gone")
    words = f"{server.status}, {server.state or 'no state'}, power {server.power or 'not known'}"
    if server.task:
        words += f", {server.task}"
    words = f"that its server is {words}"
    calm = not server.task or server.task in _QUIET_TASKS
    if server.state == "shelved_offloaded" and calm:
        return Machine("off", words)
    if server.state in _AT_REST and server.power in _DARK and calm:
        return Machine("off", words)
    if server.task or server.state not in _ALIVE:
        return Machine("between", words)
    if server.power in _DARK and server.state == "active":
        return Machine("between", words)  # Nova has seen it end and is about to mark it stopped
    return Machine("running", words, may_power_off=server.state == "active")


def suspicious(subject: Subject) -> bool:
    """Whether the cloud has to be asked: no word from the node, or it is fenced."""
    pulse = subject.pulse
    if subject.fenced:
        return True
    return pulse.late and (pulse.leased or subject.ready is not True)


def decide(subject: Subject, machine: Machine | None, policy: Policy) -> Decision:
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
        return Decision("wait", f"{since}, and the cloud cannot be asked about its machine", again, tell)
    says = f"the cloud says {machine.words}"
    if machine.power == "off":
        return Decision("fence", f"{since}, and {says}", again)
    if machine.power == "between":
        return Decision("wait", f"{since}, but {says}", _BRISK_SECONDS, pulse.silence >= TELL_BETWEEN_SECONDS)
    if machine.power == "running" and policy == "poweroff" and machine.may_power_off:
        if pulse.silence < POWEROFF_SECONDS or subject.ready is True:
            return Decision("wait", f"{since}, but {says}: it is powered off if it stays silent", again)
        if subject.silent > subject.answering:
            why = f"{subject.silent} of {subject.silent + subject.answering} nodes are silent, so it may be us who are cut off"
            return Decision("wait", f"{since}, but {says}, and {why}", again, tell)
        return Decision("poweroff", f"{since}, but {says}", again)
    return Decision("wait", f"{since}, but {says}", again, tell)


def _fenced(pulse: Pulse, machine: Machine | None, policy: Policy) -> Decision:
    if policy == "off":
        return Decision("lift", "fencing is switched off", _CALM_SECONDS, tell=True)
    if machine is None:
        return Decision("hold", "the cloud cannot be asked about its machine, which was off", _CALM_SECONDS)
    says = f"the cloud says {machine.words}"
    if machine.power != "off":
        return Decision("lift", says, _CALM_SECONDS, tell=True)
    if pulse.heard is not None and not pulse.late:
        return Decision("lift", f"it answers, although {says}", _CALM_SECONDS, tell=True)
    return Decision("hold", says, _CALM_SECONDS)

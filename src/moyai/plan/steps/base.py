"""What all steps of cluster plans have in common: an identity, what they wait for, and a line for people.

A step names objects by ``core.keys.Key``, since ids are known only when it runs. Always holds: an identity is unique in a plan;
every step may be run again at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from moyai.core.keys import Key


class Verb(StrEnum):
    """What a step does to its object."""

    CREATE = "create"
    ADOPT = "adopt"
    SET = "set"
    ADD = "add"
    ATTACH = "attach"
    START = "start"
    RESUME = "resume"
    RESTART = "restart"
    WRITE = "write"
    APPLY = "apply"
    SEND = "send"
    HAND_OVER = "hand over"
    CORDON = "cordon"
    DRAIN = "drain"
    UNCORDON = "uncordon"
    EXCLUDE = "exclude"
    MOVE = "move"
    STOP = "stop"
    DETACH = "detach"
    REMOVE = "remove"
    DELETE = "delete"
    WAIT = "wait"


@dataclass(frozen=True, order=True)
class StepId:
    """``detail`` is different for steps that do the same to one object."""

    verb: Verb
    key: Key
    detail: str = ""

    def __str__(self) -> str:
        """The name that a display shows: the object alone where a step makes it or waits for it."""
        words = self.key.name if self.verb is Verb.WAIT else str(self.key)
        plain = self.verb in (Verb.CREATE, Verb.WAIT)
        return (words if plain else f"{self.verb} {words}") + (f" {self.detail}" if self.detail else "")


@dataclass(frozen=True, kw_only=True)
class Step:
    """``key``: the object. ``after``: the steps that must be done before."""

    verb: ClassVar[Verb]

    key: Key
    after: tuple[StepId, ...] = ()
    detail: str = ""

    @property
    def id(self) -> StepId:
        return StepId(self.verb, self.key, self.detail)

    @property
    def text(self) -> str:
        """One line that says what the step does."""
        return f"{self.verb} {self.key}"


def created(key: Key) -> StepId:
    """The step that creates the object."""
    return StepId(Verb.CREATE, key)


def handed_over(key: Key) -> StepId:
    """The step that gives a part of the cluster the user's own credential."""
    return StepId(Verb.HAND_OVER, key)


def deleted(key: Key) -> StepId:
    """The step that deletes the object."""
    return StepId(Verb.DELETE, key)

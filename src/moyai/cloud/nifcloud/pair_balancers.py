"""Makes a load balancer of NIFCLOUD what it is wanted to be, whatever it is: half-made by a run that died, made by the
cloud's own controller manager, or of other ports. What always holds:

- The balancer is read, the steps follow from what is read, and after the steps it is read again.
- A reply that is lost ends the round: the next look tells what became of the step.
- A server that is gone keeps no other one out.
- A balancer of which nothing is wanted any more goes pair by pair, and nothing else is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Protocol

from moyai.cloud.nifcloud.balancer_model import (
    DENIED,
    AddPair,
    BalancerStep,
    CheckPair,
    DropPair,
    FilterPair,
    JoinPair,
    LeavePair,
    MakePairBalancer,
    MovePair,
    OrderBalancer,
    PairBalancer,
    PortPair,
    balancer_steps,
    problems,
)
from moyai.cloud.nifcloud.error_codes import LostReply, NoSuchObject
from moyai.cloud.nifcloud.nifcloud_limits import BalancerLimits
from moyai.cloud.nifcloud.wire import Wire
from moyai.cloud.service_balancers import BalancerChanging
from moyai.core.errors import Conflict, Retriable, Terminal
from moyai.core.waiting import NotYet

_AVAILABLE_SECONDS = 600.0
#: Looks at one balancer, each followed by steps: pairs come in the second, what they need in the third; the rest is for losses.
_ROUNDS = 12


class BalancerCalls(Protocol):
    """The calls of one type of load balancer."""

    def all(self) -> dict[str, PairBalancer]: ...
    def create(self, wanted: PairBalancer, pair: PortPair) -> None: ...
    def add(self, name: str, pair: PortPair) -> None: ...
    def move(self, name: str, found: PortPair, *, to: PortPair) -> None: ...
    def drop(self, name: str, pair: PortPair) -> None: ...
    def check(self, name: str, pair: PortPair) -> None: ...
    def set_filter(self, name: str, pair: PortPair, *, entries: Collection[str], on: bool, denied: bool = False) -> None: ...
    def join(self, name: str, pair: PortPair, *, servers: Collection[str]) -> None: ...
    def leave(self, name: str, pair: PortPair, *, servers: Collection[str]) -> None: ...
    def order(self, name: str, *, volume: int | None, accounting: str | None) -> None: ...


class PairBalancers:
    """All balancers of one type. Each change of a balancer waits until the last one is done.

    ``patience``: so many seconds it waits for one change. BalancerChanging is raised afterwards, and the next call goes on.
    """

    def __init__(
        self, wire: Wire, calls: BalancerCalls, *, limits: BalancerLimits, patience: float = _AVAILABLE_SECONDS
    ) -> None:
        self._wire, self._calls, self.limits, self._patience = wire, calls, limits, patience

    def all(self) -> dict[str, PairBalancer]:
        """Name → balancer, of all in the region."""
        return self._calls.all()

    def get(self, name: str) -> PairBalancer | None:
        return self._calls.all().get(name)

    def names(self) -> list[str]:
        return sorted(self._calls.all())

    def ensure(self, wanted: PairBalancer, *, checked: bool = False) -> PairBalancer:
        """Terminal for what cannot be had, with all the reasons in one line. Servers that are gone are left out.

        ``checked``: the caller has refused what cannot be had, and the rest is what the balancer has: an existing one may have
        been ordered as no limit of ``self.limits`` allows.
        """
        if not checked and (wrong := list(problems(wanted, self.limits))):
            raise Terminal(f"load balancer {wanted.name}: {'; '.join(wrong)}", object_id=wanted.name)
        gone: set[str] = set()
        lost: LostReply | None = None
        for _ in range(_ROUNDS):
            found = self._at_rest(wanted.name)
            steps = balancer_steps(_without(wanted, gone), found and _without(found, gone))
            if found is not None and not steps:
                return found
            try:
                for step in steps:
                    self._run(step, wanted, gone=gone)
                    self._at_rest(wanted.name)
            except LostReply as error:
                lost = error
            except Conflict as error:
                # made by a call whose reply was lost, or by another process: the next look decides
                self._wire.clock.sleep(1)
                lost = lost or LostReply(error.message, operation=error.operation, object_id=wanted.name)
        raise lost or Retriable(f"load balancer {wanted.name} does not become what it was asked to be", object_id=wanted.name)

    def delete(self, name: str) -> None:
        """What is gone is success."""
        for _ in range(_ROUNDS):
            found = self._at_rest(name)
            if found is None:
                return
            for pair in found.pairs:
                try:
                    self._calls.drop(name, pair)
                except (NoSuchObject, LostReply):
                    break
                self._at_rest(name)
        raise Retriable(f"load balancer {name} is still there", object_id=name)

    def _at_rest(self, name: str) -> PairBalancer | None:
        """As it is once it takes a change; None where there is none."""

        def look() -> tuple[PairBalancer | None] | NotYet:
            found = self.get(name)
            if found is None or found.available:
                return (found,)
            return NotYet(name, error=BalancerChanging(f"load balancer {name} is still being changed", object_id=name))

        return self._wire.wait(look, seconds=self._patience)[0]

    def _run(self, step: BalancerStep, wanted: PairBalancer, *, gone: set[str]) -> None:
        calls, name = self._calls, wanted.name
        match step:
            case MakePairBalancer(pair):
                calls.create(wanted, pair)
            case AddPair(pair):
                calls.add(name, pair)
            case MovePair(found, to):
                calls.move(name, found, to=to)
            case DropPair(pair):
                calls.drop(name, pair)
            case CheckPair(pair):
                calls.check(name, pair)
            case FilterPair(pair, add, remove):
                denied = {one for one in remove if one.startswith(DENIED)}
                if denied:
                    calls.set_filter(name, pair, entries={one.removeprefix(DENIED) for one in denied}, on=False, denied=True)
                if add:
                    calls.set_filter(name, pair, entries=add, on=True)
                if remove - denied:
                    calls.set_filter(name, pair, entries=remove - denied, on=False)
            case JoinPair(pair, servers):
                gone |= _each(servers, lambda some: calls.join(name, pair, servers=some))
            case LeavePair(pair, servers):
                gone |= _each(servers, lambda some: calls.leave(name, pair, servers=some))
            case OrderBalancer(volume, accounting):
                calls.order(name, volume=volume, accounting=accounting)


def _each(servers: frozenset[str], call: Callable[[frozenset[str]], None]) -> set[str]:
    """All in one call; where the API misses one of them, one call each. Returns those that it misses."""
    try:
        call(servers)
    except NoSuchObject as error:
        if error.what != "Instance":
            raise
        if len(servers) == 1:
            return set(servers)
        return set[str]().union(*(_each(frozenset({one}), call) for one in sorted(servers)))
    return set()


def _without(balancer: PairBalancer, gone: set[str]) -> PairBalancer:
    return replace(balancer, pairs=tuple(replace(one, members=one.members - gone) for one in balancer.pairs))

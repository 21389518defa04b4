"""One request to one answer: the order of checks, the call, the work that its answer needs, and what was ordered to go wrong.

The order: size and form, access key, signature, clock, operation, names of parameters, types, required ones, enumerations,
rate; then what ``calls`` checks: names and values, existence, states, duplicates, limits.
"""

from __future__ import annotations

import logging
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, one_line
from moyai.nifcloud_front.calls.call import ApiCall, Later, Values
from moyai.nifcloud_front.calls.handlers import HANDLERS
from moyai.nifcloud_front.pace import CallRate, FaultOrder, meet
from moyai.nifcloud_front.store.front_store import FrontStore
from moyai.nifcloud_front.store.rows import AddressRow, BalancerRow, PaceRow
from moyai.nifcloud_front.wire import answer as xml
from moyai.nifcloud_front.wire import request, signature
from moyai.nifcloud_front.wire.refusal import ApiRefusal, internal, invalid, not_built
from moyai.nifcloud_front.wire.service_model import ServiceModel
from moyai.nifcloud_front.worker import Worker
from moyai.nifcloud_front.works.step import WorkContext
from moyai.nifcloud_front.works.watch import watch_images

_LOG = logging.getLogger(__name__)
_LETTERS = string.digits + string.ascii_lowercase
#: Calls before which the images below are looked at.
_NEED_IMAGES = ("DescribeImages", "RunInstances")


def draw_id(prefix: str) -> str:
    """A new id: the prefix and 8 characters."""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(8))


@dataclass(frozen=True)
class HttpAnswer:
    """``lost``: the connection closes without it."""

    status: int
    body: bytes
    lost: bool = False


@dataclass(frozen=True)
class FrontParts:
    """What a front is made of. ``keys``: access key → secret key."""

    model: ServiceModel
    store: FrontStore
    context: WorkContext
    worker: Worker
    clock: Clock
    keys: Mapping[str, str]
    region: str = "jp-east-1"
    rate: CallRate = field(default_factory=CallRate)
    draw: Callable[[str], str] = draw_id


class Front:
    def __init__(self, parts: FrontParts) -> None:
        self._parts = parts

    def answer(self, target: tuple[str, str, str], body: bytes) -> HttpAnswer:
        """``target``: method, host as in the header, path."""
        number = secrets.token_hex(16)
        key, name, fault = "", "", None
        try:
            given = request.parameters(body)
            name = given.get("Action", "")[:64]
            key = signature.check(given, target=target, secrets=self._parts.keys, now=self._parts.clock.now())
            asked = request.parse(self._parts.model, given)
            if target[0] == "GET" and "UserData" in given:
                raise invalid("UserData", "User data comes by POST.")
            self._limit(key)
            fault = self._ordered(name)
            if fault and fault.fails_before:
                self._delay(fault)
                return self._failed(fault, number, note=(key, name))
            values = self._call(asked)
            made = xml.answer(self._parts.model, asked.operation, values=values, request_id=number)
        except ApiRefusal as refusal:
            self._note(key, name, code=refusal.code, number=number)
            return HttpAnswer(refusal.status, xml.error(refusal, number))
        except MoyaiError as error:
            _LOG.warning("%s: %s", name, one_line(error))
            self._note(key, name, code=internal().code, number=number)
            return HttpAnswer(500, xml.error(internal(), number))
        if fault:
            self._delay(fault)
            if fault.code or fault.lost:
                return self._failed(fault, number, note=(key, name))
        self._note(key, name, code="", number=number)
        return HttpAnswer(200, made)

    def _call(self, asked: request.ApiRequest) -> Values:
        parts, name = self._parts, asked.operation.name
        handler = HANDLERS.get(name)
        if handler is None:
            raise not_built(name)
        if name in _NEED_IMAGES:
            watch_images(parts.context)
        with parts.store.transaction() as tx:
            call = ApiCall(name, asked.arguments, tx, parts.clock.now(), parts.draw, parts.region)
            found = handler(call)
        parts.worker.wake()
        if not isinstance(found, Later):
            return found
        if not parts.worker.finish(found.kind, found.uid, ready=lambda: self._ready(found)):
            raise internal()
        with parts.store.transaction() as tx:
            return found.render(tx)

    def _ready(self, later: Later) -> bool:
        """Whether the address that the answer needs is known."""
        with self._parts.store.transaction() as tx:
            if later.kind == "address":
                address = tx.get(AddressRow, later.uid)
                return bool(address and address.address)
            balancer = tx.get(BalancerRow, later.uid)
            return bool(balancer and balancer.vip)

    def _limit(self, key: str) -> None:
        with self._parts.store.transaction() as tx:
            said = tx.get(PaceRow, PaceRow.uid)
        self._parts.rate.take(key, self._parts.clock.now().timestamp(), said=said)

    # ---- orders

    def _ordered(self, name: str) -> FaultOrder | None:
        with self._parts.store.transaction() as tx:
            met = meet([(number, FaultOrder.from_json(body)) for number, body in tx.orders()], name)
            for number, order in met.left.items():
                if order is None:
                    tx.drop_order(number)
                else:
                    tx.order(order.to_json(), number=number)
        return met.fault

    def _delay(self, fault: FaultOrder) -> None:
        if fault.delay:
            self._parts.clock.sleep(fault.delay)

    def _failed(self, fault: FaultOrder, number: str, *, note: tuple[str, str]) -> HttpAnswer:
        self._note(*note, code=fault.code or "lost", number=number)
        return HttpAnswer(fault.status, xml.error(fault.refusal(), number), lost=fault.lost)

    def _note(self, key: str, name: str, *, code: str, number: str) -> None:
        with self._parts.store.transaction() as tx:
            tx.note_call(key, name, code=code, request=number)

"""A call on its way: its arguments, the transaction it runs in, and the checks that all calls share.

The order of checks in every call: forms of names and values, existence of all objects named, states, duplicates, limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from moyai.nifcloud_front.store.front_store import StoredRow, Transaction
from moyai.nifcloud_front.store.rows import GroupRow, InstanceRow, LanRow, ZoneRow
from moyai.nifcloud_front.wire.refusal import duplicate, invalid, not_found, processing

R = TypeVar("R", bound=StoredRow)
#: Members of the answer by the model's names.
Values = dict[str, Any]
_NAME = re.compile(r"[0-9A-Za-z]+")


@dataclass(frozen=True)
class Later:
    """An answer that needs a work to end first: of the object ``kind`` ``uid``. ``render`` is called afterwards."""

    kind: str
    uid: str
    render: Callable[[Transaction], Values]


@dataclass(frozen=True)
class ApiCall:
    """``draw``: makes a new id that begins with its argument."""

    operation: str
    args: Mapping[str, Any]
    tx: Transaction
    now: datetime
    draw: Callable[[str], str]
    region: str

    def text(self, name: str, default: str = "") -> str:
        return self.args.get(name, default)

    def name(self, parameter: str, *, least: int = 1, most: int = 15) -> str:
        """The value of a parameter that names an object; a new one where the call has none."""
        value = self.args.get(parameter)
        if value is None:
            return self.draw("")
        check_name(parameter, value, least=least, most=most)
        return value

    def description(self, parameter: str = "Description", *, most: int = 40) -> str:
        value = self.text(parameter)
        if len(value) > most:
            raise invalid(parameter, f"The description has more than {most} characters.")
        return value

    def zone(self, name: str | None) -> ZoneRow:
        """The zone of that name, the first one for none."""
        if name:
            return self.found(ZoneRow, "AvailabilityZone", name=name)
        return self.tx.all(ZoneRow)[0]

    def found(self, kind: type[R], what: str, *, name: str) -> R:
        """The object of a name. Raises ApiRefusal where there is none."""
        row = self.tx.named(kind, name)
        if row is None:
            raise not_found(what, name)
        return row

    def steady(self, row: R, what: str) -> R:
        """Raises ApiRefusal for an object that is under change."""
        if self.tx.busy(row):
            raise processing(what, row.name)
        return row

    def free(self, kind: type[StoredRow], what: str, *, name: str) -> None:
        """Raises ApiRefusal for a name that is taken."""
        if self.tx.named(kind, name) is not None:
            raise duplicate(what, name)

    def new_name(self, row: StoredRow, what: str, *, parameter: str, name: str, most: int = 15) -> str:
        """What the object is to be called from now on. Raises ApiRefusal for what is no name, and for one that is taken."""
        check_name(parameter, name, most=most)
        if name != row.name:
            self.free(type(row), what, name=name)
        return name

    def listed(self, kind: type[R], what: str, *, parameter: str) -> list[R]:
        """The objects that a list names, all for none. One unknown name refuses the whole call."""
        names = self.args.get(parameter)
        if not names:
            return self.tx.all(kind)
        return [self.found(kind, what, name=name) for name in dict.fromkeys(names)]

    def instances(self, parameter: str = "InstanceId") -> list[InstanceRow]:
        return self.listed(InstanceRow, "Instance", parameter=parameter)

    def lan(self, network: str, name: str = "") -> LanRow:
        """A private LAN by its id or by its name. Raises ApiRefusal."""
        if network:
            row = self.tx.get(LanRow, network)
            if row is None:
                raise not_found("NetworkId", network)
            return row
        return self.found(LanRow, "PrivateLanName", name=name)

    def group_name(self, uid: str) -> str:
        row = self.tx.get(GroupRow, uid) if uid else None
        return row.name if row else ""


def check_name(parameter: str, value: str, *, least: int = 1, most: int = 15) -> None:
    if not (_NAME.fullmatch(value) and least <= len(value) <= most):
        raise invalid(parameter, f"The name '{value[:64]}' does not have {least} to {most} letters and digits.")


def one_of(parameter: str, value: Any, *, values: Collection[Any]) -> None:
    if value not in values:
        raise invalid(parameter, f"The value {value} of {parameter} is none of {', '.join(map(str, values))}.")


def reordered(call: ApiCall, *, volume: int, accounting: str, volumes: Collection[int]) -> tuple[int, str]:
    """Network volume and accounting type that an update of a balancer of either type asks for; what it does not name stays."""
    volume, accounting = call.args.get("NetworkVolumeUpdate", volume), str(call.args.get("AccountingTypeUpdate", accounting))
    one_of("NetworkVolumeUpdate", volume, values=volumes)
    one_of("AccountingTypeUpdate", accounting, values=("1", "2"))
    return volume, accounting


def between(parameter: str, value: int, *, least: int, most: int) -> None:
    if not least <= value <= most:
        raise invalid(parameter, f"The value {value} of {parameter} is not between {least} and {most}.")

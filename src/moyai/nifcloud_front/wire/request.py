"""A request's flat parameters, read by the shape of the operation's input.

A list is written ``X.1``, or ``X.member.1`` where the model names its members. Values come out as the SDK takes them: members
by the model's names, integers and booleans as such. A parameter that the model lacks, a missing one and a value of the wrong
type or outside of its enumeration are refused, in this order of checks: form, names, types, required, enumerations.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from moyai.nifcloud_front.wire.refusal import ApiRefusal, invalid
from moyai.nifcloud_front.wire.service_model import Operation, ServiceModel, Shape

#: Bytes of a request's body; the longest field is user data of 8 KB.
MOST_BYTES = 1 << 20
#: Some hundred items of a list with some fields each.
MOST_PARAMETERS = 4096
#: Parameters of every request: who asks for what.
COMMON = frozenset(
    {"Action", "Version", "AccessKeyId", "SignatureVersion", "SignatureMethod", "Timestamp", "Signature", "SecurityToken"}
)
_WITH_USER_DATA = ("RunInstances", "StartInstances", "RebootInstances")
#: DescribeLoadBalancers puts a balancer's name and its two ports side by side, not below one number.
_BALANCER_FIELD = re.compile(r"LoadBalancerNames\.(member|LoadBalancerPort|InstancePort)\.(\d+)")
_NUMBER = re.compile(r"[1-9]\d{0,3}")
#: What XML 1.0 has no way to write.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_INTEGER = re.compile(r"-?\d{1,19}")


@dataclass(frozen=True)
class ApiRequest:
    operation: Operation
    arguments: Mapping[str, Any]


def parameters(body: bytes) -> dict[str, str]:
    """The parameters of a form. Raises ApiRefusal for a body that is too long, no form, or names one parameter twice; and for
    more parameters than any call needs."""
    if len(body) > MOST_BYTES:
        raise ApiRefusal("Client.InvalidParameter.Format.Request", f"The request is longer than {MOST_BYTES} bytes.")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=MOST_PARAMETERS,
        )
    except ValueError:
        raise ApiRefusal(
            "Client.InvalidParameter.Format.Request",
            f"The request is not a form of at most {MOST_PARAMETERS} URL-encoded parameters.",
        ) from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise invalid(name, f"The parameter {name} is given twice.", kind="Format")
        if _UNPRINTABLE.search(name + value):
            # an answer that repeats it would be no XML
            where = name if name.isprintable() else "Request"
            raise invalid(where, "The request has a control character.", kind="Format")
        found[name] = value
    return found


def parse(model: ServiceModel, given: Mapping[str, str]) -> ApiRequest:
    """Raises ApiRefusal with the first thing that is wrong."""
    name = given.get("Action", "")
    operation = model.operations.get(name)
    if operation is None:
        raise ApiRefusal("Client.InvalidParameter.Value.Action", f"There is no operation '{name[:64]}'.")
    if given.get("Version", model.version) != model.version:
        raise invalid("Version", f"The version is not {model.version}.")
    reader = _ParameterReader(model, _usual(name, given))
    arguments: dict[str, Any] = reader.read(model.shapes[operation.takes], "") or {}
    for unknown in sorted(reader.given.keys() - reader.used - COMMON):
        raise invalid(unknown[:128], f"The operation {name} has no parameter '{unknown[:128]}'.", kind="Unknown")
    if reader.wrong:
        raise reader.wrong[0]
    _check(model, model.shapes[operation.takes], value=arguments, at="")
    return ApiRequest(operation, arguments)


def _usual(name: str, given: Mapping[str, str]) -> dict[str, str]:
    """The parameters of three families of operations that are written unlike the model says, written like it."""
    usual = dict(given)
    if name in _WITH_USER_DATA and "UserData" in usual:
        usual["UserData.Content"] = usual.pop("UserData")
    if name == "DescribeLoadBalancers":
        for key in given:
            if found := _BALANCER_FIELD.fullmatch(key):
                field = "LoadBalancerName" if found[1] == "member" else found[1]
                usual[f"LoadBalancerNames.member.{found[2]}.{field}"] = usual.pop(key)
    return usual


class _ParameterReader:
    """``used``: the parameters that the model knows. ``wrong``: values of the wrong type, in the model's order."""

    def __init__(self, model: ServiceModel, given: Mapping[str, str]) -> None:
        self._model, self.given = model, given
        self.used: set[str] = set()
        self.wrong: list[ApiRefusal] = []

    def read(self, shape: Shape, at: str) -> Any:
        """The value at a name; None where no parameter is."""
        if shape.type == "structure":
            found = {
                name: self.read(self._model.member(member), f"{at}.{member.wire or name}" if at else member.wire or name)
                for name, member in shape.members.items()
            }
            return {name: value for name, value in found.items() if value is not None} or None
        if shape.type == "list":
            return self._list(shape, at)
        if at not in self.given:
            return None
        self.used.add(at)
        try:
            return _scalar(shape, self.given[at])
        except ValueError:
            self.wrong.append(invalid(at, f"The value of {at} is not of the type {shape.type}.", kind="Format"))
            return None

    def _list(self, shape: Shape, at: str) -> list[Any] | None:
        assert shape.item is not None
        if self.given.get(at) == "":
            # how the SDK writes an empty list
            self.used.add(at)
            return []
        prefix = f"{at}.{shape.item.wire}." if shape.item.wire else f"{at}."
        numbers = {
            key[len(prefix) :].partition(".")[0]
            for key in self.given
            if key.startswith(prefix) and _NUMBER.fullmatch(key[len(prefix) :].partition(".")[0])
        }
        item = self._model.member(shape.item)
        for number in range(1, max(map(int, numbers), default=0)):
            if str(number) not in numbers:
                name = f"{prefix}{number}"
                self.wrong.append(invalid(name, f"The parameter {name} is missing in its list.", kind="Required"))
                break
        values = [self.read(item, f"{prefix}{number}") for number in sorted(numbers, key=int)]
        return [one for one in values if one is not None] or None


def _scalar(shape: Shape, text: str) -> Any:
    """Raises ValueError."""
    match shape.type:
        case "integer" | "long":
            if not _INTEGER.fullmatch(text):
                raise ValueError(text)
            return int(text)
        case "double":
            return float(text)
        case "boolean":
            if text.lower() not in ("true", "false"):
                raise ValueError(text)
            return text.lower() == "true"
        case "timestamp":
            return datetime.fromisoformat(text)
        case "blob":
            try:
                return base64.b64decode(text, validate=True)
            except binascii.Error:
                raise ValueError(text) from None
        case _:
            return text


def _check(model: ServiceModel, shape: Shape, *, value: Any, at: str) -> None:
    """Raises ApiRefusal for the first required member that is missing, then for the first value outside of its enumeration."""
    for check in (_required, _enumerated):
        for part, one, place in _parts(model, shape, value=value, at=at):
            check(part, one, at=place)


def _parts(model: ServiceModel, shape: Shape, *, value: Any, at: str) -> Iterator[tuple[Shape, Any, str]]:
    """The value and all that is in it, the outer before the inner: its shape, itself, its place."""
    yield shape, value, at
    if shape.type == "structure":
        for name, one in value.items():
            member = shape.members[name]
            yield from _parts(model, model.member(member), value=one, at=_below(at, member.wire or name))
    elif shape.type == "list" and shape.item is not None:
        for number, one in enumerate(value, start=1):
            yield from _parts(model, model.member(shape.item), value=one, at=_item(at, shape.item.wire, number=number))


def _required(shape: Shape, value: Any, *, at: str) -> None:
    if shape.type == "structure":
        # where a call without a list means all objects, an empty list must not
        for name in sorted(one for one in shape.required if value.get(one) in (None, [])):
            where = _below(at, shape.members[name].wire or name)
            raise invalid(where, f"The parameter {where} is required.", kind="Required")


def _enumerated(shape: Shape, value: Any, *, at: str) -> None:
    if shape.type not in ("structure", "list") and shape.enum and value not in shape.enum:
        raise invalid(at, f"The value of {at} is none of {', '.join(sorted(shape.enum)[:12])}.")


def _below(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _item(at: str, wire: str, *, number: int) -> str:
    return f"{at}.{wire}.{number}" if wire else f"{at}.{number}"

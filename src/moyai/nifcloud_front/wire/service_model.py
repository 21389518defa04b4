"""The service model of NIFCLOUD's computing API: its operations, and the shapes of what they take and return.

It is the JSON file of the vendor's SDK (PyPI ``nifcloud``). The file is read without importing the SDK, whose import changes
botocore for the whole process (ADR 0131).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from moyai.core.errors import MoyaiError

ShapeType = Literal["structure", "list", "string", "blob", "boolean", "double", "integer", "long", "timestamp"]


@dataclass(frozen=True)
class ShapeMember:
    """A member of a structure, or what a list holds. ``wire``: its name on the wire, empty where the model gives none."""

    shape: str
    wire: str = ""


@dataclass(frozen=True)
class Shape:
    """``enum``: the values that a string may have; empty: any."""

    name: str
    type: ShapeType
    members: Mapping[str, ShapeMember]
    required: frozenset[str]
    enum: frozenset[str]
    item: ShapeMember | None


@dataclass(frozen=True)
class Operation:
    """``takes`` and ``returns`` are names of structures."""

    name: str
    takes: str
    returns: str


@dataclass(frozen=True)
class ServiceModel:
    version: str
    namespace: str
    operations: Mapping[str, Operation]
    shapes: Mapping[str, Shape]

    def member(self, member: ShapeMember) -> Shape:
        return self.shapes[member.shape]

    @classmethod
    def parse(cls, text: str) -> ServiceModel:
        data: dict[str, Any] = json.loads(text)
        return cls(
            version=data["metadata"]["apiVersion"],
            namespace=data["metadata"]["xmlNamespace"],
            operations={
                name: Operation(name, one["input"]["shape"], one["output"]["shape"]) for name, one in data["operations"].items()
            },
            shapes={name: _shape(name, one) for name, one in data["shapes"].items()},
        )


def _shape(name: str, data: Mapping[str, Any]) -> Shape:
    item = data.get("member")
    return Shape(
        name=name,
        type=data["type"],
        members={key: _member(one) for key, one in data.get("members", {}).items()},
        required=frozenset(data.get("required", ())),
        # some values of the model stand together in one text
        enum=frozenset(part.strip() for one in data.get("enum", ()) for part in one.split(",")),
        item=None if item is None else _member(item),
    )


def _member(data: Mapping[str, Any]) -> ShapeMember:
    return ShapeMember(data["shape"], data.get("locationName", ""))


def load_model() -> ServiceModel:
    """The model of the installed SDK. Raises MoyaiError where there is none."""
    found = find_spec("nifcloud")
    for folder in (found.submodule_search_locations or ()) if found else ():
        file = Path(folder) / "data" / "computing" / "3.0" / "service-2.json"
        if file.exists():
            return ServiceModel.parse(file.read_text())
    raise MoyaiError("the service model of NIFCLOUD is not installed", hint="install the Python package nifcloud")

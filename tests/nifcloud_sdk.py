"""The vendor's SDK of NIFCLOUD, as a client of another kind: its serializer, its parser, its signer, and samples by its model.

Importing the SDK changes botocore for the whole process. Nothing else in moyai uses botocore.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import import_module
from typing import Any
from urllib.parse import urlencode

_session: Any = import_module("nifcloud.session")


class NifcloudSdk:
    """``model`` is botocore's view of the same file that the front reads."""

    def __init__(self) -> None:
        session = _session.Session()
        self.model: Any = session.get_service_model("computing")
        self._serializer: Any = import_module("botocore.serialize").create_serializer("computing", include_validation=False)
        self._parser: Any = import_module("botocore.parsers").create_parser("computing")

    def operations(self) -> list[str]:
        return list(self.model.operation_names)

    def form(self, name: str, arguments: dict[str, Any]) -> dict[str, str]:
        """The parameters that the SDK sends, without those of the signature."""
        body = self._serializer.serialize_to_request(arguments, self.model.operation_model(name))["body"]
        return {key: str(value) for key, value in body.items()}

    def body(self, name: str, arguments: dict[str, Any]) -> bytes:
        return urlencode(self.form(name, arguments)).encode()

    def understood(self, name: str, *, body: bytes, status: int = 200) -> dict[str, Any]:
        """What a caller of the SDK gets for an answer."""
        shape = self.model.operation_model(name).output_shape
        return self._parser.parse({"headers": {}, "body": body, "status_code": status}, shape)


def client(endpoint: str, *, key: str, secret: str, verify: str | bool = True) -> Any:
    """A client of the SDK without retries."""
    config = import_module("botocore.config").Config(retries={"max_attempts": 0}, read_timeout=30)
    return _session.Session().create_client(
        "computing",
        region_name="jp-east-1",
        endpoint_url=endpoint,
        verify=verify,
        nifcloud_access_key_id=key,
        nifcloud_secret_access_key=secret,
        config=config,
    )


def sample(shape: Any, *, seed: int, only_required: bool = False) -> Any:
    """A value of the shape with every member that it may have; ``seed`` makes two samples differ."""
    if shape.type_name == "structure":
        members = shape.members
        names = [name for name in members if not only_required or name in shape.required_members]
        return {name: sample(members[name], seed=seed + place, only_required=only_required) for place, name in enumerate(names)}
    if shape.type_name == "list":
        return [sample(shape.member, seed=seed + place, only_required=only_required) for place in range(1 + seed % 3)]
    match shape.type_name:
        case "integer" | "long":
            return seed
        case "double":
            return seed + 0.5
        case "boolean":
            return seed % 2 == 0
        case "timestamp":
            return datetime(2026, 1, 1 + seed % 28, tzinfo=UTC)
        case "blob":
            return b"bytes %d" % seed
        case _:
            return (
                shape.enum[seed % len(shape.enum)].partition(",")[0]
                if getattr(shape, "enum", None)
                else f"text & é<{seed}>+ *~"
            )


def required_paths(shape: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of members that a call must have, where all structures above them are there."""
    if shape.type_name == "list":
        yield from required_paths(shape.member, (*at, "0"))
    elif shape.type_name == "structure":
        for name, member in shape.members.items():
            if name in shape.required_members:
                yield (*at, name)
            yield from required_paths(member, (*at, name))

"""Answers and errors as XML, by the shape of the operation's output.

There are two families: lower-camel members and ``requestId`` at the top, or an ``…Result`` member and ``ResponseMetadata``.
Both follow from the model. The id of an error's request is written ``RequestID``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any
from xml.etree import ElementTree as ET

from moyai.nifcloud_front.wire.refusal import ApiRefusal
from moyai.nifcloud_front.wire.service_model import Operation, ServiceModel, Shape

#: Times are Japan's.
JAPAN = timezone(timedelta(hours=9))


def answer(model: ServiceModel, operation: Operation, *, values: Mapping[str, Any], request_id: str) -> bytes:
    """``values``: members by the model's names, without the request's id. An unknown member raises KeyError."""
    shape = model.shapes[operation.returns]
    if "ResponseMetadata" in shape.members:
        values = {**values, "ResponseMetadata": {"RequestId": request_id}}
    elif "RequestId" in shape.members:
        values = {**values, "RequestId": request_id}
    root = ET.Element(f"{operation.name}Response", xmlns=model.namespace)
    _write(model, root, shape=shape, value=values)
    return _bytes(root)


def error(refusal: ApiRefusal, request_id: str) -> bytes:
    root = ET.Element("Response")
    one = ET.SubElement(ET.SubElement(root, "Errors"), "Error")
    ET.SubElement(one, "Code").text = refusal.code
    ET.SubElement(one, "Message").text = refusal.message
    ET.SubElement(root, "RequestID").text = request_id
    return _bytes(root)


def _bytes(root: ET.Element) -> bytes:
    written: bytes = ET.tostring(root, "utf-8", xml_declaration=True)
    return written


def _write(model: ServiceModel, here: ET.Element, *, shape: Shape, value: Any) -> None:
    if shape.type == "structure":
        for name, one in value.items():
            member = shape.members[name]
            inside = ET.SubElement(here, member.wire or name)
            _write(model, inside, shape=model.member(member), value=one)
    elif shape.type == "list" and shape.item is not None:
        for one in value:
            _write(model, ET.SubElement(here, shape.item.wire or "member"), shape=model.member(shape.item), value=one)
    else:
        here.text = _text(value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(JAPAN).isoformat(timespec="seconds")
    return str(value)

"""Names in a spec: what is checked of each, and whether rules that are younger than a cluster count for it."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import AfterValidator, ValidationInfo

from moyai.spec.base import problem

#: Key of a validation's context: true for the spec of a cluster that exists.
RECORDED = "recorded"
#: What every cloud takes as the name of an object.
MAX_NAME = 255


def is_new(info: ValidationInfo) -> bool:
    """Whether all rules hold: the cluster does not exist yet, or its spec comes from its user."""
    return not cast("dict[str, Any]", info.context or {}).get(RECORDED)


def _name(value: str, info: ValidationInfo) -> str:
    if not value.strip() or len(value) > MAX_NAME:
        raise problem(f"a name of 1 to {MAX_NAME} characters")
    return _printable(value, info)


def _printable(value: str, info: ValidationInfo) -> str:
    if is_new(info) and (len(value) > MAX_NAME or not value.isprintable()):
        raise problem(f"a name of at most {MAX_NAME} characters, none of them a control character")
    return value


Name = Annotated[str, AfterValidator(_name)]
#: May be empty.
Choice = Annotated[str, AfterValidator(_printable)]

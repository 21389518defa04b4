"""Names in a spec: what is checked of each, and whether rules that are younger than a cluster count for it."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from moyai.core.ids import is_dns_label
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


def _cloud(value: Any) -> Any:
    """A kind of cloud with its settings as the text by which its adapter knows it: ``KIND:key=value,key=value``."""
    if not isinstance(value, dict):
        return value
    named = cast("dict[Any, Any]", value)
    kind, settings = next(iter(named.items()), ("", None))
    pairs = cast("dict[Any, Any]", settings or {}) if isinstance(settings, dict | None) else {"": None}
    right = len(named) == 1 and isinstance(kind, str) and is_dns_label(kind)
    texts = all(isinstance(one, str) and one and not set(one) & set(",=") for pair in pairs.items() for one in pair)
    if not right or not texts:
        raise problem("a name, or one kind of cloud with its settings, which are texts without ',' and '='")
    return f"{kind}:{','.join(f'{key}={one}' for key, one in pairs.items())}" if pairs else kind


Name = Annotated[str, AfterValidator(_name)]
#: May be empty.
Choice = Annotated[str, AfterValidator(_printable)]
#: Of a cloud; written as a mapping where it is a kind with settings.
CloudName = Annotated[Name, BeforeValidator(_cloud)]

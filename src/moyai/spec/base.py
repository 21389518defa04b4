"""What all models of the spec have in common: strictness, and errors that say what a value should be."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError


def problem(should: str, *, at: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """An error that says what the value should be. ``at``: the faulty field below the model that raises it."""
    return PydanticCustomError("moyai", "{should}", {"should": should, "at": at})


class Model(BaseModel):
    """Strict: no unknown fields, no guessing of types, never changed after validation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=False, strict=True, validate_default=True
    )

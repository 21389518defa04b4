"""How the machines of a pool are replaced, and how their pods leave them."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from moyai.spec.base import Model, problem


class RollingUpdate(Model):
    """How the machines of a pool are replaced when they are out of date. Names and meaning as in a Deployment."""

    max_surge: Annotated[int, Field(ge=0, le=50)] = Field(
        default=1,
        description="How many machines more than `replicas` there may be meanwhile (0 to 50). So many are replaced at once: "
        "new ones are made, and when they are Ready old ones leave.",
    )
    max_unavailable: Annotated[int, Field(ge=0, le=50)] = Field(
        default=0,
        description="Where `maxSurge` is 0: how many machines leave at once before new ones are made in their places (0 to "
        "50), for a cloud that has no room for one more.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.max_surge and not self.max_unavailable:
            raise problem("at least 1 where maxSurge is 0: otherwise no machine could be replaced", at=("maxUnavailable",))
        return self

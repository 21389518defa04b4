"""How the machines of a pool are replaced, and how their pods leave them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from moyai.spec.base import Model, problem
from moyai.spec.kubernetes import is_key, is_value


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


class Drain(Model):
    """How the pods of a pool leave a node that goes."""

    order: list[dict[str, str]] = Field(
        default_factory=list[dict[str, str]],
        description="Labels of pods. Those that have the first ones leave first, then those that have the next ones; the "
        "others leave last. Left out: all at once.",
    )
    wait_for_jobs: Annotated[int, Field(ge=0, le=86400)] = Field(
        default=0, description="Seconds in which pods of Jobs may end by themselves before they are evicted (0 to 86400)."
    )
    timeout: Annotated[int, Field(ge=10, le=86400)] = Field(
        default=180, description="Seconds that the other pods have, disruption budgets included (10 to 86400)."
    )
    at_timeout: Literal["stop", "override"] = Field(
        default="stop",
        description="`stop`: the command ends and names the pods, and the node stays. `override`: the pods are deleted, "
        "whatever budgets say.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for number, labels in enumerate(self.order):
            # others are at no pod
            if not labels or not all(is_key(key) and is_value(value) for key, value in labels.items()):
                raise problem("labels such as {app: web}", at=("order", number))
        return self

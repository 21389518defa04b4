"""Which backups of a cluster there are to be, and where. Always holds: nobody makes a backup that cannot be opened by a key."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, model_validator

from moyai.spec.base import Model, problem

_EVERY = re.compile(r"([1-9][0-9]{0,3})([hd])")
_KEY = re.compile(r"(age1|ssh-)[\x21-\x7e ]*")


class Backups(Model):
    """Backups that `moyai backup --scheduled` makes."""

    every: str = Field(
        default="24h",
        description="How old the youngest backup may become, in hours or days such as `6h` or `1d`. `moyai status` reports an "
        "older one.",
    )
    keep: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=14, description="How many of them stay (1 to 1000); the oldest ones beyond these are deleted."
    )
    to: str = Field(
        default="",
        description="Folder for them on the machine that has the cluster's record, as an absolute path; empty: there are no "
        "scheduled backups.",
    )
    recipients: list[str] = Field(
        default_factory=list[str],
        description="Public keys of age (`age1…`) or SSH that they are encrypted for; at least one where `to` is given.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not _EVERY.fullmatch(self.every):
            raise problem("hours or days such as 6h or 1d", at=("every",))
        if self.to and not self.to.startswith("/"):
            raise problem("an absolute path such as /backups", at=("to",))
        if self.to and not self.recipients:
            raise problem("at least one public key: nobody could open the backups", at=("recipients",))
        for number, key in enumerate(self.recipients):
            if not _KEY.fullmatch(key):
                # at the list: the message repeats no value, for it may be a private key
                raise problem(f"public keys of age (age1…) or SSH (ssh-…): number {number + 1} is none", at=("recipients",))
        return self

    @property
    def period(self) -> timedelta:
        """``every`` as a span of time."""
        found = _EVERY.fullmatch(self.every)
        assert found is not None
        return timedelta(hours=int(found[1]) * (24 if found[2] == "d" else 1))

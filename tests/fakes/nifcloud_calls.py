"""A call as it comes over the wire to the small NIFCLOUD account of unit tests, and how it is refused."""

from __future__ import annotations

from dataclasses import dataclass


class Refused(Exception):
    def __init__(self, code: str, words: str) -> None:
        super().__init__(code)
        self.code, self.words = code, words


@dataclass(frozen=True)
class Call:
    operation: str
    parameters: dict[str, str]

    def __getitem__(self, key: str) -> str:
        return self.parameters.get(key, "")

    def many(self, key: str) -> list[str]:
        """``key.1``, ``key.2`` …"""
        found: list[str] = []
        while (name := f"{key}.{len(found) + 1}") in self.parameters:
            found.append(self.parameters[name])
        return found

    def groups(self, key: str) -> list[dict[str, str]]:
        """``key.1.X`` … as one mapping each."""
        found: dict[int, dict[str, str]] = {}
        for name, value in self.parameters.items():
            if name.startswith(f"{key}."):
                number, _, rest = name.removeprefix(f"{key}.").partition(".")
                found.setdefault(int(number), {})[rest] = value
        return [found[number] for number in sorted(found)]


def missing(what: str) -> Refused:
    return Refused(f"Client.InvalidParameterNotFound.{what}", f"there is no such {what}")


def taken(what: str) -> Refused:
    return Refused(f"Client.InvalidParameterDuplicate.{what}", f"there is such a {what}")

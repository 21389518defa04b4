"""Key pairs under moyai's names: NIFCLOUD's have 6 to 32 letters and digits, and keys of RSA or DSA."""

from __future__ import annotations

import hashlib
import re

from moyai.cloud.nifcloud.error_codes import NoSuchObject
from moyai.cloud.nifcloud.instance_calls import InstanceCalls
from moyai.cloud.nifcloud.marks import DESCRIPTION_LENGTH
from moyai.cloud.nifcloud.nifcloud_limits import KEY_KINDS, KEY_NAME_LENGTHS
from moyai.cloud.nifcloud.wire import Wire
from moyai.core.errors import Conflict, UsageError

_PLAIN = re.compile(rf"[0-9A-Za-z]{{{KEY_NAME_LENGTHS[0]},{KEY_NAME_LENGTHS[1]}}}")
#: Begins the description of a key pair whose name was translated; the name follows.
_BEGIN = "moyai:"


class KeyNames:
    def __init__(self, wire: Wire, calls: InstanceCalls) -> None:
        self._wire, self._calls = wire, calls

    def names(self) -> list[str]:
        return sorted(_name(name, description) for name, description in self._calls.key_pairs().items())

    def wire_name(self, name: str) -> str:
        """What the cloud calls it: the name itself where the cloud takes it, else one that follows from it."""
        return name if _PLAIN.fullmatch(name) else f"moyai{hashlib.sha256(name.encode()).hexdigest()[:20]}"

    def create(self, name: str, public_key: str) -> None:
        """A taken name raises Conflict; so does one whose reply was lost, since keys cannot be compared."""
        kind = public_key.split(" ", 1)[0]
        if kind not in KEY_KINDS:
            raise UsageError(f"NIFCLOUD takes no key of kind {kind}", hint=f"give one of {' or '.join(KEY_KINDS)}")
        short = self.wire_name(name)
        description = "" if short == name else _BEGIN + name
        if len(description) > DESCRIPTION_LENGTH:
            most = DESCRIPTION_LENGTH - len(_BEGIN)
            raise UsageError(f"the key pair's name {name!r} is too long for NIFCLOUD", hint=f"it may have {most} characters")
        if short in self._calls.key_pairs():
            raise Conflict(f"there is a key pair {name} already")
        self._wire.settle(
            lambda: self._calls.import_key_pair(short, description=description, public_key=public_key),
            lambda: short in self._calls.key_pairs(),
        )

    def delete(self, name: str) -> None:
        short = self.wire_name(name)
        if short not in self._calls.key_pairs():
            return
        try:
            self._wire.settle(lambda: self._calls.delete_key_pair(short), lambda: short not in self._calls.key_pairs())
        except NoSuchObject:
            return


def _name(wire_name: str, description: str) -> str:
    return description.removeprefix(_BEGIN) if description.startswith(_BEGIN) else wire_name

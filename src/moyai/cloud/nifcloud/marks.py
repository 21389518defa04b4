"""Whose an object is, and what moyai calls it: NIFCLOUD has no tags, names of 15 letters and digits, and descriptions of 40.

- An object's name in the cloud (``wire_name``) follows from the cluster's UID and from what moyai calls the object: the same
  call after a crash asks for the same name. It begins with the cluster's code, so that a list in the control panel is sorted by
  cluster.
- Its description (``Mark``) has the UID and moyai's own name, character by character.
- Owner is who stands in the description. A name alone proves nothing: an object with our name and another description is
  somebody else's, and is never touched.

Pure. A user who edits a description takes the object away from its cluster.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from moyai.core.errors import Conflict, Terminal, UsageError
from moyai.core.ids import CLUSTER_TAG, cluster_tag, tag_owner

#: Of servers, firewall groups, private LANs and load balancers: letters and digits.
NAME_LENGTH = 15
DESCRIPTION_LENGTH = 40
_CODE_LENGTH, _DIGEST_LENGTH = 5, 6
_FORM = re.compile(r"moyai:([0-9a-z]+),(.*)")
#: What names have often, and how descriptions shorten it: names have no colon.
_SHORT = {"control-plane": ":c", "security-group": ":s"}
_DIGITS = string.digits + string.ascii_lowercase


@dataclass(frozen=True)
class Mark:
    """Cluster and object, as a description has them."""

    uid: str
    name: str

    @property
    def text(self) -> str:
        """Raises UsageError for a name that does not fit."""
        short = self.name
        for word, abbreviation in _SHORT.items():
            short = short.replace(word, abbreviation)
        written = f"moyai:{self.uid},{short}"
        if len(written) > DESCRIPTION_LENGTH:
            raise UsageError(
                f"the name {self.name!r} is too long for NIFCLOUD: its descriptions have {DESCRIPTION_LENGTH} characters",
                hint=f"choose shorter names for cluster and pools, {len(written) - DESCRIPTION_LENGTH} characters less in all",
            )
        return written

    @property
    def tags(self) -> tuple[str, ...]:
        return (cluster_tag(self.uid),)

    @property
    def metadata(self) -> Mapping[str, str]:
        return {CLUSTER_TAG: self.uid}


def read_mark(description: str) -> Mark | None:
    """The inverse of ``Mark.text``; None for the description of somebody else's object."""
    found = _FORM.fullmatch(description)
    if found is None:
        return None
    name = found[2]
    for word, abbreviation in _SHORT.items():
        name = name.replace(abbreviation, word)
    return Mark(found[1], name)


def mark_of(name: str, tags: Collection[str]) -> Mark:
    """Raises Terminal for tags of which a description cannot hold all: it has room for the cluster's own one."""
    owners = [owner for tag in tags if (owner := tag_owner(tag))]
    if len(owners) != 1 or len(tags) != 1:
        raise Terminal(f"NIFCLOUD has no tags: {name} can be marked with its cluster alone, not with {', '.join(sorted(tags))}")
    return Mark(owners[0], name)


def cluster_code(uid: str) -> str:
    """Begins the names of all that a cluster has: a letter, then letters and digits."""
    digest = _base36(f"cluster {uid}", _CODE_LENGTH)
    return string.ascii_lowercase[_DIGITS.index(digest[0]) % 26] + digest[1:]


def wire_name(mark: Mark) -> str:
    """What the cloud calls the object: cluster's code, up to four characters for people, a digest."""
    return cluster_code(mark.uid) + _hint(mark.name) + _base36(f"{mark.uid} {mark.name}", _DIGEST_LENGTH)


def zonal_name(mark: Mark, zone: str) -> str:
    """What the cloud calls the object's counterpart in a further zone: names are the account's."""
    return wire_name(Mark(mark.uid, f"{mark.name} {zone}"))


def adopted(found: Mark | None, wanted: Mark, *, what: str) -> None:
    """Raises Conflict where an object with the name of ``wanted`` is not that object. ``what``: of which kind, and its name."""
    if found != wanted:
        whose = f"of cluster {found.uid}, {found.name}" if found else "somebody else's"
        hint = "rename that object in the control panel, or delete it if nobody needs it"
        raise Conflict(f"NIFCLOUD has {what} already, and it is {whose}", hint=hint)


def _hint(name: str) -> str:
    """``wor0`` of ``quickstart-workers-0``."""
    parts = [one for one in re.split(r"[^0-9a-z]+", name.lower()) if one]
    number = parts.pop() if len(parts) > 1 and parts[-1].isdigit() else ""
    room = NAME_LENGTH - _CODE_LENGTH - _DIGEST_LENGTH
    number = number[-room:]
    return ((parts[-1] if parts else "")[: room - len(number)] + number)[:room]


def _base36(words: str, length: int) -> str:
    number = int.from_bytes(hashlib.sha256(words.encode()).digest()[:16])
    digits: list[str] = []
    for _ in range(length):
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    return "".join(digits)

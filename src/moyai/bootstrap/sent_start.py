"""A machine's start that is sent to it: a script as user data, for clouds that take little and run scripts only, and what `up`
sends to the machine over SSH.

Always holds: the script lets one key log in, which can do nothing but hand over the start; the machine runs nothing but what
has the digest in the script, once; what is sent is encrypted with a key that is in the script alone, so that whoever answers in
the machine's place learns nothing; the key is gone from the machine once it has served. It is POSIX sh, and needs sshd,
sha256sum, flock and openssl. ADR 0141 has the reasons.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from enum import Enum
from importlib.resources import files

from moyai.bootstrap.pki import seal

#: Name of the private key in the record's folder that may log in to hand over a start.
START_KEY = "id_start"
_PUBLIC = re.compile(r"ssh-[a-z0-9-]+ [A-Za-z0-9+/=]+")


@dataclass(frozen=True)
class SentStart:
    """``script``: the user data. ``sealed``: what is sent."""

    script: str = field(repr=False)
    sealed: str = field(repr=False)


class StartVerdict(Enum):
    """What a machine says of a start that was sent to it."""

    STARTED = "moyai: started"
    OTHER = "moyai: another start is expected"
    FAILED = "moyai: start failed"
    SILENT = ""


def verdict_of(said: str) -> StartVerdict:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    return next((one for one in StartVerdict if one.value and one.value == last), StartVerdict.SILENT)


def sent_start(content: str, public_key: str) -> SentStart:
    """``content``: a script for the machine's shell. ``public_key``: the line of the key that hands it over. Each call draws
    another key for the content."""
    found = _PUBLIC.match(public_key)
    if found is None:
        raise ValueError("a public key as OpenSSH writes it is needed")
    key = secrets.token_urlsafe(32)
    sealed = seal(content.encode(), key)
    take = _data("take-start").replace("@DIGEST@", hashlib.sha256(sealed.encode()).hexdigest()).replace("@KEY@", key)
    script = _data("expect-start").replace("@TAKE@", take.rstrip("\n")).replace("@PUBLIC@", found[0])
    return SentStart(script, sealed)


def as_script(user_data: str, *, unsealing_key: str = "") -> str:
    """User data for cloud-init as a script that does the same. ``unsealing_key``: opens a control plane's encrypted part; it
    comes along here, because a machine of such a cloud has no metadata."""
    first, _, rest = user_data.partition("\n")
    if first != "#cloud-boothook":
        raise ValueError("this is no boothook")
    if not unsealing_key:
        return rest
    hash_bang, _, commands = rest.partition("\n")
    folder = "/var/lib/moyai"
    keep = (
        f"umask 077\nmkdir -p {folder}\n"
        f"[ -e {folder}/cluster ] || printf %s '{unsealing_key}' >{folder}/unsealing-key\numask 022\n"
    )
    return f"{hash_bang}\n{keep}{commands}"


def _data(name: str) -> str:
    return (files("moyai.bootstrap") / "data" / name).read_text(encoding="utf-8")

"""What a refusal of the volume driver means to a user: whether it passes by itself, or what has to change.

Always holds: "by itself" is said only of what does pass by itself; of a refusal that nothing is known of, nothing is said.
Source: gRPC's status codes as the Container Storage Interface gives them a meaning (csi.errors has moyai's own).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_RPC = re.compile(r"rpc error: code = (\w+) desc = (.*)", re.DOTALL)
#: What the provisioner says itself of a claim that is smaller than what it is filled from. Bytes.
_TOO_SMALL = re.compile(r"requested volume size \d+ is less than the size (\d+) for the source")
_GI = 1 << 30
#: Codes of what changes without anybody's doing.
_PASSING = frozenset({"Unavailable", "Aborted", "DeadlineExceeded"})
BY_ITSELF = "it is tried again by itself"


@dataclass(frozen=True)
class Refusal:
    """``code``: gRPC's, empty for a message that carries none. ``words``: the reason without the words around it."""

    code: str
    words: str

    @property
    def passes(self) -> bool:
        return self.code in _PASSING


def refusal(message: str) -> Refusal:
    """What a message of a side-car or a kubelet carries."""
    text = " ".join(message.split()).rstrip(".")
    found = _RPC.search(text)
    return Refusal(found[1], found[2]) if found else Refusal("", text)


def provisioning_help(message: str, *, claim: str, class_name: str) -> list[str]:
    """What helps a claim that got no disk, because of this message."""
    if small := _TOO_SMALL.search(message):
        return [f"create claim {claim} again and ask for at least {-(-int(small[1]) // _GI)}Gi, the size of its source"]
    said = refusal(message)
    if said.passes:
        return [BY_ITSELF]
    match said.code:
        case "InvalidArgument" | "OutOfRange":
            return [
                f"create StorageClass {class_name} or claim {claim} again without what the reason names: as they are, none fits"
            ]
        case "ResourceExhausted":
            return ["delete volumes, or have the cloud's operator make room or raise the quota: then it is made by itself"]
        case "NotFound":
            return [f"create claim {claim} again from a source that exists"]
        case "AlreadyExists":
            return ["delete that volume in the cloud, if nobody needs it: then the claim's own is made by itself"]
        case _:
            return []

"""Names of the table's sets, maps and chains.

Always holds: a name follows from what the object is for, so a new process gives the same names. nftables accepts each name.
"""

from __future__ import annotations

import re
from hashlib import blake2b

from moyai.core.printable import printable
from moyai.kube.objects.policy import PodPeer

TABLE = "moyai-policy"
#: The chain of a machine that has booted and whose agent has applied nothing yet.
GATE = "gate"
#: Longer names of policies are replaced by a digest; nftables takes 255 bytes.
_LONGEST = 200
#: Of bytes; libnftables ends the whole process over a comment that is much longer.
_LONGEST_COMMENT = 120
#: What Kubernetes takes as the name of a container's port.
_PORT_NAME = re.compile(r"[A-Za-z0-9-]{1,63}")


def pods(peer: PodPeer, family: int) -> str:
    """The set of the pods that a selector selects."""
    return f"pods-{digest(repr(peer))}-{family}"


def named_port(protocol: str, name: str, *, local: bool, family: int) -> str:
    """The set of (address, port) of the pods with a port of that name: all, or those of this node."""
    said = name if _PORT_NAME.fullmatch(name) else digest(name)
    return f"port-{'here' if local else 'all'}-{protocol}-{said}-{family}"


def isolated_to(family: int) -> str:
    """The map from a pod's address to the chain of what may be sent to it."""
    return f"to-{family}"


def isolated_from(family: int) -> str:
    """The map from a pod's address to the chain of what it may send."""
    return f"from-{family}"


def isolated(family: int) -> str:
    """The set of this node's pods that a policy selects."""
    return f"isolated-{family}"


def itself(family: int) -> str:
    """The set of pairs of such a pod's address with itself."""
    return f"itself-{family}"


def here(family: int) -> str:
    """The set of this node's pods that the table is complete for."""
    return f"here-{family}"


def trial(family: int) -> str:
    """The set of what policies on trial would have dropped, which the kernel fills."""
    return f"trial-{family}"


def denied(family: int) -> str:
    """The set of what policies with a log have dropped, which the kernel fills."""
    return f"denied-{family}"


def ranges(family: int) -> str:
    """The set of the ranges of this node's pods, empty while there is no policy."""
    return f"ranges-{family}"


def policy_chain(incoming: bool, key: str) -> str:
    name = f"{'in' if incoming else 'out'}/{key}"
    return name if len(name) <= _LONGEST else f"{'in' if incoming else 'out'}/{digest(key)}"


def group_chain(
    incoming: bool,
    policies: tuple[str, ...],
    *,
    admin: tuple[str, ...] = (),
    baseline: tuple[str, ...] = (),
    trial: tuple[str, ...] = (),
    tried: tuple[tuple[str, ...], ...] = (),
    logs: bool = False,
) -> str:
    """The chain of the pods that exactly these policies select. ``logs``: whether what they deny is logged."""
    more = (admin, baseline, trial, logs, *tried)
    meaning = repr((policies, more)) if any(more) else repr(policies)
    return f"{'to' if incoming else 'from'}/{digest(meaning)}"


def tier_chain(incoming: bool, tier: str, *, policies: tuple[str, ...]) -> str:
    """The chain of a tier's policies that select the same pods, in their order."""
    return f"{'in' if incoming else 'out'}-{tier.lower()}/{digest(repr(policies))}"


def tried_chain(incoming: bool, tier: str, *, policies: tuple[str, ...]) -> str:
    """The chain that notes what those of a tier on trial would deny, among all that select the same pods, in their order."""
    return f"{'in' if incoming else 'out'}-{tier.lower()}-trial/{digest(repr(policies))}"


def trial_chain(incoming: bool, policies: tuple[str, ...]) -> str:
    """The chain of the policies on trial that select the same pods."""
    return f"{'in' if incoming else 'out'}-trial/{digest(repr(policies))}"


def comment(text: str) -> str:
    """``text`` as nftables takes it beside a rule: names of a policy's rules hold any characters."""
    return printable(text).encode(errors="replace")[:_LONGEST_COMMENT].decode(errors="ignore")


def family_of(address: str) -> int:
    """Of an address or a range."""
    return 6 if ":" in address else 4


def digest(meaning: str) -> str:
    """Of few characters, the same in each process."""
    return blake2b(meaning.encode(), digest_size=8).hexdigest()

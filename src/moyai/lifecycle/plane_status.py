"""The control planes of a cluster that may have several: which of them holds the API's address, and what each is to etcd.

Always holds: what cannot be asked is unknown, never guessed. The holder is read from the certificate that answers at the API's
address: kubeadm puts the node's name into it. etcd is asked by its own etcdctl, in the pod of a control plane that is Ready.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from moyai.bootstrap import pki
from moyai.core.errors import MoyaiError
from moyai.kube.quick import KubeApi
from moyai.lifecycle.etcd_members import TIMEOUT, etcdctl
from moyai.plan.cluster.control_planes import majority

LEADER, VOTER, LEARNER, ABSENT, UNKNOWN = "leader", "voter", "learner", "absent", "unknown"


@dataclass(frozen=True)
class PlaneStatus:
    """``member``: what its etcd is to the others: leader, voter, learner, absent or unknown. ``holder``: it has the API's
    address."""

    name: str
    member: str
    holder: bool


def read_planes(
    api: KubeApi | None, names: Sequence[str], *, ready: Iterable[str], held: bool = True
) -> tuple[PlaneStatus, ...]:
    """``names``: of the control planes. ``ready``: of the nodes that are Ready. ``held``: one of them has the API's address."""
    if not names:
        return ()
    found = next(iter(set(names) & shown_names(api)), "") if api and held else ""
    members = _members(api, [name for name in names if name in set(ready)]) if api else None
    return tuple(
        PlaneStatus(name, UNKNOWN if members is None else members.get(name, ABSENT), name == found) for name in sorted(names)
    )


def plane_problems(planes: Sequence[PlaneStatus], *, ready: Iterable[str]) -> Iterable[str]:
    """What is wrong with etcd's members, as far as they are known."""
    working = set(ready)
    known = [one for one in planes if one.member in (LEADER, VOTER)]
    for one in planes:
        if one.member == ABSENT:
            yield f"control plane {one.name} is no member of etcd"
        elif one.member == LEARNER:
            yield f"control plane {one.name} has not got all of etcd's data yet"
    spare = sum(one.name in working for one in known) - majority(len(known))
    if known and len(known) > 1 and spare == 0:
        yield "etcd has no member to spare: if one more dies, the API stops"


def shown_names(api: KubeApi) -> frozenset[str]:
    """The names in the certificate that answers at the API's address, its node's among them; empty where nobody answers."""
    try:
        return pki.dns_names(api.serving_certificate(timeout=TIMEOUT))
    except (MoyaiError, ValueError):
        return frozenset()


def _members(api: KubeApi, names: Iterable[str]) -> dict[str, str] | None:
    """Name → what the member is; None where no etcd could be asked."""
    for name in names:
        try:
            listed = etcdctl(api, name, words=("member", "list"))
            return parse_members(listed, etcdctl(api, name, words=("endpoint", "status")))
        except (MoyaiError, ValueError, KeyError, IndexError, TypeError):
            continue
    return None


def parse_members(listed: Any, status: Any) -> dict[str, str]:
    """Of what etcdctl prints for ``member list`` and for ``endpoint status``."""
    leader = status[0]["Status"]["leader"]
    members = cast("list[dict[str, Any]]", listed["members"])
    return {
        one.get("name", ""): LEADER if one["ID"] == leader else LEARNER if one.get("isLearner") else VOTER for one in members
    }

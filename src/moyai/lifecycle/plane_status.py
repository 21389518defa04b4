"""The control planes of a cluster that may have several: which of them holds the API's address, and what each is to etcd.

Always holds: what cannot be asked is unknown, never guessed. The holder is read from the certificate that answers at the API's
address: kubeadm puts the node's name into it. etcd is asked by its own etcdctl, in the pod of a control plane that is Ready.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from moyai.bootstrap import pki
from moyai.cloud.capabilities import Cloud
from moyai.cloud.load_balancers import BalancerState
from moyai.core.errors import MoyaiError
from moyai.kube.quick import KubeApi
from moyai.lifecycle.etcd_members import TIMEOUT, etcdctl
from moyai.lifecycle.observe import api_balancer
from moyai.lifecycle.record import Record
from moyai.plan.cluster.control_planes import majority
from moyai.plan.nodes import CONTROL_PLANE_POOL, pool_of_node
from moyai.spec.control_plane import Way

LEADER, VOTER, LEARNER, ABSENT, UNKNOWN = "leader", "voter", "learner", "absent", "unknown"


@dataclass(frozen=True)
class PlaneStatus:
    """``member``: what its etcd is to the others: leader, voter, learner, absent or unknown. ``holder``: it has the API's
    address."""

    name: str
    member: str
    holder: bool


def read_planes(
    api: KubeApi | None, names: Sequence[str], *, ready: Iterable[str], way: Way = "vrrp"
) -> tuple[PlaneStatus, ...]:
    """``names``: of the control planes. ``ready``: of the nodes that are Ready. ``way``: to the API."""
    if not names or way == "single":
        return ()
    found = next(iter(set(names) & shown_names(api)), "") if api and way == "vrrp" else ""
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


def balancer_problems(cloud: Cloud, record: Record, *, ready: Iterable[str]) -> Iterator[str]:
    """What is wrong with the load balancer before the API, where there is to be one. ``ready``: names of Ready nodes."""
    if not record.cluster.spec.control_plane.balanced or not record.ready:
        return
    try:
        found = api_balancer(cloud, record.name, uid=record.uid)
    except MoyaiError:
        return  # that the cloud does not answer is said already
    if found is None:
        yield "there is no load balancer before the API: `moyai up` makes it again"
    elif found.state is BalancerState.FAILED:
        yield f"load balancer {found.name} before the API is {found.status}: `moyai up` makes it again"
    else:
        led = {one.name for listener in found.listeners if listener.pool for one in listener.pool.members}
        planes = (name for name in record.allocations if pool_of_node(name, record.name) == CONTROL_PLANE_POOL)
        for name in sorted(set(planes) & set(ready) - led):
            yield f"load balancer {found.name} before the API does not send to {name}: `moyai up` lets it"


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

"""etcd's members as the steps of a removal see and change them, by etcdctl in the pods of the control planes' own etcds.

Always holds: members are compared by address, for a member that never started has no name; a member is removed only while a
majority of the voters that stay is healthy, and while no other machine joins. Sources: etcdctl's output in JSON, raft's rule
that a change of members needs a majority.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from moyai.core.errors import MoyaiError, Retriable
from moyai.kube.quick import KubeApi
from moyai.kube.resources import KUBE_SYSTEM
from moyai.plan.cluster.control_planes import majority

ETCD_PKI = "/etc/kubernetes/pki/etcd"
_ETCDCTL = (
    "etcdctl",
    f"--cacert={ETCD_PKI}/ca.crt",
    f"--cert={ETCD_PKI}/healthcheck-client.crt",
    f"--key={ETCD_PKI}/healthcheck-client.key",
    "--command-timeout=3s",
    "--write-out=json",
)
#: Seconds without a word after which a call is given up.
TIMEOUT = 4.0


def etcdctl(api: KubeApi, plane: str, *, words: Sequence[str]) -> Any:
    """What etcdctl says in the etcd pod of a control plane, which asks this etcd alone. MoyaiError or ValueError where it
    fails."""
    return json.loads(api.execute(KUBE_SYSTEM, f"etcd-{plane}", command=[*_ETCDCTL, *words], timeout=TIMEOUT))


@dataclass(frozen=True)
class EtcdMember:
    """``name``: empty until its etcd has run once. ``address``: at which the other members reach it."""

    id: int
    name: str
    address: str
    learner: bool = False

    @property
    def hex(self) -> str:
        """The id in etcdctl's words."""
        return f"{self.id:x}"


def parse_member(found: Any) -> EtcdMember:
    """Of etcdctl's ``member list``."""
    urls = cast("list[str]", found.get("peerURLs") or [""])
    address = urls[0].partition("://")[2].rpartition(":")[0]
    return EtcdMember(int(found["ID"]), found.get("name", ""), address, bool(found.get("isLearner")))


def may_leave(members: Collection[EtcdMember], address: str, *, healthy: Collection[int]) -> str:
    """Why the member at ``address`` must not be removed now; empty where it may. ``healthy``: ids of the members that reach a
    majority."""
    mine = next((one for one in members if one.address == address), None)
    if mine is None or mine.learner:
        return ""
    if any(one.learner for one in members):
        return "another control plane is joining etcd"
    stay = [one for one in members if one != mine]
    well = sum(one.id in healthy for one in stay)
    if not stay or well < majority(len(stay)):
        return f"{well} of the {len(stay)} etcd members that would stay are healthy, which is no majority"
    return ""


class Etcd:
    """``planes``: names of the control planes whose etcds are asked, in this order."""

    def __init__(self, api: KubeApi, planes: Iterable[str]) -> None:
        self._api, self._planes = api, tuple(planes)

    def members(self) -> tuple[EtcdMember, ...]:
        """As a majority knows them. Retriable where no etcd can be asked."""
        why = "there is no control plane to ask"
        for plane in self._planes:
            try:
                listed = etcdctl(self._api, plane, words=("member", "list"))["members"]
                return tuple(map(parse_member, listed))
            except (MoyaiError, ValueError, KeyError, TypeError) as error:
                why = str(error)
        raise Retriable(f"no etcd says who its members are: {why}")

    def healthy(self, members: Iterable[EtcdMember]) -> frozenset[int]:
        """Ids of those that reach a majority, by their own word."""
        return frozenset(one.id for one in members if one.name and self._answers(one.name, ("endpoint", "health")))

    def reading(self, members: Iterable[EtcdMember]) -> frozenset[int]:
        """Ids of those that answer a read, which a majority has confirmed. A full database makes a member unhealthy by its own
        word, though it reads and votes."""
        return frozenset(one.id for one in members if one.name and self._reads(one.name))

    def leader(self) -> int:
        """The leader's id. Retriable where no etcd knows one."""
        for plane in self._planes:
            try:
                return int(etcdctl(self._api, plane, words=("endpoint", "status"))[0]["Status"]["leader"])
            except (MoyaiError, ValueError, KeyError, IndexError, TypeError):
                continue
        raise Retriable("no etcd says who the leader is")

    def move_leader(self, leader: EtcdMember, to: EtcdMember) -> None:
        """The leader alone can do it. MoyaiError where it does not."""
        # it says so in a sentence, whatever the form of its output
        self._api.execute(KUBE_SYSTEM, f"etcd-{leader.name}", command=[*_ETCDCTL, "move-leader", to.hex], timeout=TIMEOUT)

    def remove(self, member: EtcdMember) -> None:
        """Through the first etcd that takes it. Retriable where none does."""
        why = ""
        for plane in self._planes:
            try:
                etcdctl(self._api, plane, words=("member", "remove", member.hex))
            except (MoyaiError, ValueError) as error:
                why = str(error)
            else:
                return
        raise Retriable(f"no etcd removes the member: {why}")

    def defragment(self, member: EtcdMember, *, timeout: float) -> None:
        """Give back what no content of this member's database needs; it answers nobody meanwhile. MoyaiError where it fails."""
        words = ("defrag", f"--command-timeout={timeout:.0f}s")
        self._api.execute(KUBE_SYSTEM, f"etcd-{member.name}", command=[*_ETCDCTL, *words], timeout=timeout + TIMEOUT)

    def disarm(self) -> None:
        """End all alarms; a member whose reason lasts raises its own again. MoyaiError where no etcd does it."""
        self._api.execute(KUBE_SYSTEM, f"etcd-{self._planes[0]}", command=[*_ETCDCTL, "alarm", "disarm"], timeout=TIMEOUT)

    def _reads(self, plane: str) -> bool:
        try:
            return "header" in etcdctl(self._api, plane, words=("get", "health"))
        except (MoyaiError, ValueError, TypeError):
            return False

    def _answers(self, plane: str, words: Sequence[str]) -> bool:
        try:
            return all(bool(one["health"]) for one in etcdctl(self._api, plane, words=words))
        except (MoyaiError, ValueError, KeyError, TypeError):
            return False

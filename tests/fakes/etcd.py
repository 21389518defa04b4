"""etcd's members as a cluster of control planes has them, and what a wrong step would cost: told in ``broken``.

Machines join by the rules of ``bootstrap/data/etcd_member.py``. A change of members needs a majority of those that were there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from moyai.core.errors import Retriable, Terminal
from moyai.kube.resources import Json
from moyai.plan.cluster.control_planes import majority


@dataclass
class FakeMember:
    id: int
    name: str
    address: str
    learner: bool = False


class FakeEtcd:
    """``running``: names of the machines that run. ``serving``: those whose API servers do. ``holder``: has the API's address.

    ``broken``: each thing that no step may do. ``moves``: how often a leader was asked to hand over.
    """

    def __init__(self) -> None:
        self.members: dict[str, FakeMember] = {}
        self.running: set[str] = set()
        self.serving: set[str] = set()
        self.leader = self.holder = ""
        self.broken: list[str] = []
        #: Where a load balancer has the API's address: the addresses that it sends to.
        self.led: Callable[[], Collection[str]] | None = None
        self.moves = 0
        #: Bytes of a member's database on disk; what a status says of alarms; members in the order of their defragmentation.
        self.sizes: dict[str, int] = {}
        self.alarms: Json = {}
        self.defragmented: list[str] = []
        #: What a backup reads, as it is printed; ``hurt`` changes it.
        self.database = b"etcd's database"
        self.hurt: Callable[[bytes], bytes] = lambda printed: printed
        self._next = 100

    # ---- machines

    def start(self, name: str, address: str, *, blank: bool) -> None:
        """A machine runs; ``blank``: it has never run before."""
        if name in self.running and not blank:
            return
        self.running.add(name)
        stale = next((one for one in self.members.values() if one.address == address), None)
        if blank and stale is not None:
            others = [one for one in self.members.values() if one is not stale]
            if not self.well(others):
                return  # it waits
            del self.members[stale.name]
        if blank and (not self.members or self.well(self.members.values())):
            self._next += 1
            self.members[name] = FakeMember(self._next, name, address)
        if name in self.members:
            self.serving.add(name)
        self._elect()

    def stop(self, name: str) -> None:
        self.running.discard(name)
        self.serving.discard(name)
        self._elect()

    def well(self, members: Any) -> bool:
        voters = [one for one in members if not one.learner]
        return bool(voters) and sum(one.name in self.running for one in voters) >= majority(len(voters))

    @property
    def answers(self) -> bool:
        """Whether the API does."""
        return bool(self.shown) and self.well(self.members.values())

    @property
    def shown(self) -> str:
        """The machine that answers at the API's address; empty where none does."""
        if self.led is None:
            return self.holder
        led = self.led()
        return min((name for name in self.serving if self.members[name].address in led), default="")

    def _elect(self) -> None:
        fit = sorted(name for name in self.members if name in self.running)
        if self.leader not in fit:
            self.leader = fit[0] if fit else ""
        if self.holder not in self.serving:
            self.holder = min(self.serving, default="")

    # ---- what is asked of them

    def endpoints(self) -> Json:
        """The EndpointSlice ``kubernetes``."""
        addresses = [{"addresses": [self.members[name].address]} for name in sorted(self.serving)]
        return {"metadata": {"name": "kubernetes", "namespace": "default"}, "endpoints": addresses}

    def execute(self, pod: str, command: Sequence[str]) -> str:
        kind, _, plane = pod.partition("-")
        if plane not in self.running:
            raise Retriable(f"the kubelet of {plane} does not answer")
        if kind == "leave":
            return self._leave(plane, command[-1])
        words = [word for word in command[1:] if not word.startswith("--")]
        return json.dumps(self._etcdctl(plane, words))

    def snapshot(self, pod: str) -> bytes:
        """What ``bootstrap/data/etcd_snapshot.py`` prints on this pod's machine."""
        plane = pod.removeprefix("backup-")
        if plane not in self.running:
            raise Retriable(f"the kubelet of {plane} does not answer")
        whole = self.database + hashlib.sha256(self.database).digest()
        return self.hurt(json.dumps({"size": len(whole), "revision": 7, "version": "3.7.3"}).encode() + b"\n" + whole)

    def _leave(self, plane: str, what: str) -> str:
        if what == "address" and self.holder == plane:
            self.holder = min(self.serving - {plane}, default=plane)
        if what == "servers":
            if self.led and plane in self.serving and self.members[plane].address in self.led():
                self.broken.append(f"the API server of {plane} ended while the load balancer sent to it")
            if self.led is None and self.holder == plane:
                self.broken.append(f"the API server of {plane} ended with the API's address")
            self.serving.discard(plane)
            self._elect()
        return ""

    def _etcdctl(self, plane: str, words: list[str]) -> Any:
        own = self.members.get(plane)
        if own is None or not self.well(self.members.values()):
            raise Terminal("etcdserver: no leader")
        if words[:2] == ["member", "list"]:
            return {"members": [_shown(one) for one in self.members.values()]}
        if words[:2] == ["endpoint", "health"]:
            return [{"health": True}]
        if words[:2] == ["endpoint", "status"]:
            header = {"header": {"member_id": own.id}, "version": "3.7.3"}
            sizes = {"dbSize": self.sizes.get(plane, 1 << 20), "dbSizeInUse": 1 << 20, "dbSizeQuota": 1 << 31}
            return [{"Status": {"leader": self.members[self.leader].id, **header, **sizes, **self.alarms}}]
        if words[0] == "get":
            return {"header": {"revision": 7}}
        if words[0] == "defrag":
            if plane == self.leader and len(self.members) > 1:
                self.broken.append(f"{plane} was defragmented while it led")
            self.sizes[plane] = 1 << 20
            self.defragmented.append(plane)
            return "Finished"
        target = next((one for one in self.members.values() if f"{one.id:x}" == words[-1]), None)
        if target is None:
            raise Terminal("etcdserver: member not found")
        if words[0] == "move-leader":
            if plane != self.leader:
                raise Terminal("no leader endpoint")
            self.leader, self.moves = target.name, self.moves + 1
            return "moved"
        assert words[:2] == ["member", "remove"], words
        return self._remove(target)

    def _remove(self, target: FakeMember) -> Any:
        if target.name == self.leader:
            self.broken.append(f"{target.name} was removed while it led")
        if target.name in self.serving:
            self.broken.append(f"{target.name} was removed while its API server ran")
        del self.members[target.name]
        if not self.well(self.members.values()):
            self.broken.append(f"without {target.name} there is no majority")
        self._elect()
        return {}


def _shown(one: FakeMember) -> Json:
    found: Json = {"ID": one.id, "name": one.name, "peerURLs": [f"https://{one.address}:2380"]}
    return found | ({"isLearner": True} if one.learner else {})

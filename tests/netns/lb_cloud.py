"""The daemon with its world, and load balancers to want of it."""

from __future__ import annotations

import socket
import threading
import uuid
from dataclasses import replace
from pathlib import Path

from moyai.localcloud.drivers.octavia import balancer_tree as m
from moyai.localcloud.drivers.octavia.agent import SOCKET, LoadBalancerAgent
from moyai.localcloud.drivers.octavia.data_plane import Plane
from tests.netns.lb_world import MEMBERS, PORT, VIP, FakeStore, World, until


class Cloud:
    """The world, the store, and the daemon running in a thread."""

    def __init__(self, net: World, root: Path) -> None:
        self.net, self.root, self.store = net, root, FakeStore()
        self.agent: LoadBalancerAgent | None = None
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        self.agent = LoadBalancerAgent(self.store, self.root)
        self.thread = threading.Thread(target=self.agent.run, daemon=True)
        self.thread.start()
        until("listening", self._listens)

    def _listens(self) -> bool:
        """Whether somebody reads the socket: a daemon that ended leaves the file behind until the next one replaces it."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            try:
                link.connect(str(self.root / SOCKET))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
        return True

    def stop(self) -> None:
        assert self.agent is not None
        assert self.thread is not None
        self.agent.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()

    def apply(self, tree: m.LoadBalancer) -> m.LoadBalancer:
        """As a call of the API: commit, wait until it serves."""
        self.store.want(tree)
        self.call("apply", tree.id)
        until(f"{tree.id} settled", lambda: tree.id not in self.store.pending())
        assert self.store.provisioning[tree.id] == m.ACTIVE
        return tree

    def call(self, *words: str) -> None:
        """As the driver calls the daemon."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto(" ".join(words).encode(), str(self.root / SOCKET))

    def delete(self, tree: m.LoadBalancer) -> None:
        self.store.provisioning[tree.id] = m.PENDING_DELETE
        until("deleted", lambda: tree.id not in self.store.trees)

    def plane(self, tree: m.LoadBalancer) -> Plane:
        return Plane(self.root, tree.id)


def tree(
    *, listener: dict[str, object] | None = None, pool: dict[str, object] | None = None, monitor: m.Monitor | None = None
) -> m.LoadBalancer:
    """A load balancer with one TCP listener on port 80 and both members; details as given."""
    wanted = m.Pool(
        id=str(uuid.uuid4()),
        **{
            "protocol": "TCP",
            "monitor": monitor,
            "members": tuple(m.Member(id=str(uuid.uuid4()), address=one, port=PORT) for one in MEMBERS),
            **(pool or {}),
        },  # pyright: ignore[reportArgumentType]
    )
    port = m.Listener(
        id=str(uuid.uuid4()),
        pool_id=wanted.id,
        **{"protocol": "TCP", "port": 80, **(listener or {})},  # pyright: ignore[reportArgumentType]
    )
    return m.LoadBalancer(
        id=str(uuid.uuid4()), vip_address=VIP, vip_port_id=str(uuid.uuid4()), listeners=(port,), pools=(wanted,)
    )


def changed(balancer: m.LoadBalancer, n: int, **changes: object) -> m.LoadBalancer:
    """The same with the n-th member of its pool changed."""
    pool = balancer.pools[0]
    members = list(pool.members)
    members[n] = replace(members[n], **changes)  # pyright: ignore[reportArgumentType]
    return replace(balancer, pools=(replace(pool, members=tuple(members)),))

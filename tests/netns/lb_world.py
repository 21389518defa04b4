"""A small network for the load-balancer tests: a client, two members and the load balancers, each in a namespace of its own.

Everything stands on one bridge inside a namespace that the test's thread enters, so nothing touches the machine's own network.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from moyai.linux import netns
from moyai.linux.process import run
from moyai.localcloud.drivers.octavia import balancer_tree as m
from moyai.localcloud.drivers.octavia.vip_link import MadePort, Plug, PortBefore

NETWORK = "11111111-2222-3333-4444-555555555555"
VIP = "10.99.0.10"
CLIENT, CLIENT2 = "10.99.0.100", "10.99.0.101"
MEMBERS = ("10.99.0.21", "10.99.0.22")
PORT = 8080

T = TypeVar("T", bound=m.Thing)


@dataclass
class FakeStore:
    """What Octavia's database and Neutron would say, and what was reported."""

    trees: dict[str, m.LoadBalancer] = field(default_factory=dict[str, m.LoadBalancer])
    operating: dict[str, str] = field(default_factory=dict[str, str])
    provisioning: dict[str, str] = field(default_factory=dict[str, str])
    statistics_seen: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    tidied: str | None = None
    released: list[str] = field(default_factory=list[str])
    addresses: dict[str, tuple[netns.LinkAddress, ...]] = field(default_factory=dict[str, "tuple[netns.LinkAddress, ...]"])

    def want(self, tree: m.LoadBalancer) -> None:
        """As the API commits a change: the load balancer waits for it."""
        self.trees[tree.id] = replace(tree, status="PENDING_UPDATE" if tree.status == m.ACTIVE else tree.status)
        self.provisioning[tree.id] = self.trees[tree.id].status

    def pending(self) -> list[str]:
        return [one for one in self.trees if self.provisioning[one].startswith("PENDING_")]

    def everything(self) -> list[str]:
        return list(self.trees)

    def committed(self, balancer_id: str) -> str | None:
        return self.provisioning[balancer_id] if balancer_id in self.trees else None

    def load(self, balancer_id: str) -> m.LoadBalancer | None:
        tree = self.trees.get(balancer_id)
        if tree is None:
            return None
        pools = tuple(replace(self._now(one), members=tuple(self._now(member) for member in one.members)) for one in tree.pools)
        return replace(
            self._now(tree),
            status=self.provisioning[tree.id],
            pools=pools,
            listeners=tuple(self._now(one) for one in tree.listeners),
        )

    def _now(self, thing: T) -> T:
        return replace(thing, operating=self.operating.get(thing.id, "OFFLINE"))

    def report(self, status: dict[str, list[dict[str, str]]]) -> None:
        for things in status.values():
            for one in things:
                if one.get("operating_status"):
                    self.operating[one["id"]] = one["operating_status"]
                if one.get("provisioning_status"):
                    self.provisioning[one["id"]] = one["provisioning_status"]

    def deleted(self, balancer_id: str) -> None:
        self.provisioning[balancer_id] = m.DELETED
        del self.trees[balancer_id]

    def statistics(self, gains: list[dict[str, int | str]]) -> None:
        for one in gains:
            seen = self.statistics_seen.setdefault(str(one["id"]), {})
            for key, value in one.items():
                if key != "id":
                    seen[key] = int(value) + (0 if key == "active_connections" else seen.get(key, 0))

    def tidy(self, host: str) -> None:
        self.tidied = host

    def plug(self, port_id: str, *, made: MadePort | None = None) -> Plug:
        mac = "fa:16:3e:" + ":".join(port_id[n : n + 2] for n in (0, 2, 4))
        return Plug(port_id, mac, NETWORK, 1450, self.addresses.get(port_id, (netns.LinkAddress(VIP, 24),)))

    def release_port(self, balancer_id: str, port_id: str, *, taken: PortBefore | None, made: MadePort | None) -> None:
        self.released.append(port_id)


@dataclass(frozen=True)
class Asker:
    """A UDP socket; ``ask`` says which member answered, "" when none did."""

    link: socket.socket

    def ask(self) -> str:
        try:
            self.link.send(b"q")
            return self.link.recv(999).decode().split()[0]
        except OSError:
            return ""


class World:
    """The network; ``start``/``stop`` of members, and ``curl``/``ask`` by the client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tag = uuid.uuid4().hex[:6]
        self.outer = f"mt-{self.tag}"
        self.servers: dict[str, subprocess.Popen[str]] = {}

    def ns(self, address: str) -> str:
        """The namespace of a client or member."""
        return f"mt-{self.tag}-{address.rsplit('.', 1)[1]}"

    def build(self) -> None:
        """Make it; the calling thread is inside ``outer`` already."""
        run(["ip", "link", "set", "lo", "up"])
        bridge = f"brq{NETWORK[:11]}"
        run(["ip", "link", "add", bridge, "type", "bridge"])
        run(["ip", "link", "set", bridge, "up"])
        for address in (CLIENT, CLIENT2, *MEMBERS):
            last = address.rsplit(".", 1)[1]
            netns.add(self.ns(address))
            netns.plug(
                self.ns(address),
                netns.Link(
                    f"tap{self.tag}{last}", "eth0", f"fa:16:3e:00:00:{int(last):02x}", 1450, (netns.LinkAddress(address, 24),)
                ),
            )
            netns.enslave(f"tap{self.tag}{last}", bridge)

    def start(self, address: str, *, port: int = PORT, udp: bool = True, status: int = 200) -> None:
        """Start the member's server (again)."""
        self.stop(address)
        self.status(address, status)
        server = subprocess.Popen(
            [
                *netns.prefix(self.ns(address)),
                sys.executable,
                str(Path(__file__).with_name("lb_member.py")),
                address,
                str(port),
                str(self.folder / address),
                *(["udp"] if udp else []),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        self.servers[address] = server

    def status(self, address: str, status: int) -> None:
        """What the member's server answers over HTTP from now on."""
        (self.folder / address).write_text(str(status))

    def stop(self, address: str) -> None:
        """Kill the member's server."""
        if server := self.servers.pop(address, None):
            server.kill()
            server.communicate()

    def curl(self, *options: str, port: int = 80, client: str = CLIENT, path: str = "/", to: str = VIP) -> str:
        """The body that the client gets from that address, or an empty text when it gets none."""
        words = ["curl", "-s", "-m", "3", *options, f"http://{f'[{to}]' if ':' in to else to}:{port}{path}"]
        return run([*netns.prefix(self.ns(client)), *words], timeout=30, check=False).stdout

    def names(self, count: int, *options: str, port: int = 80, client: str = CLIENT) -> list[str]:
        """Which members answered ``count`` requests ("" for none)."""
        return [self._name(self.curl(*options, port=port, client=client)) for _ in range(count)]

    @staticmethod
    def _name(body: str) -> str:
        return next((line.removeprefix("name=") for line in body.splitlines() if line.startswith("name=")), "")

    def ask(self, count: int, *, port: int = 53, client: str = CLIENT, same_source: bool = False, to: str = VIP) -> list[str]:
        """Which members answered ``count`` datagrams, each (mostly) from another source port ("" for none)."""
        script = (
            "import socket\n"
            "s = None\n"
            f"for n in range({count}):\n"
            f"    if s is None or not {same_source}:\n"
            "        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.4)\n"
            f"    s.connect(('{to}', {port}))\n"
            "    try:\n"
            "        s.send(b'q%d' % n); print(s.recv(999).decode())\n"
            "    except OSError: print('')\n"
        )
        asked = run([*netns.prefix(self.ns(client)), sys.executable, "-c", script], timeout=30)
        return asked.stdout.removesuffix("\n").split("\n")

    @contextlib.contextmanager
    def socket(self, client: str = CLIENT) -> Generator[Asker]:
        """A client's UDP socket that asks the VIP's port 53, from one and the same source port."""
        with netns.inside(self.ns(client)):
            link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with link:
            link.settimeout(0.7)
            link.connect((VIP, 53))
            yield Asker(link)

    def close(self) -> None:
        """Take everything away."""
        for address in list(self.servers):
            self.stop(address)
        for name in netns.names(self.outer + "-"):
            netns.remove(name)


@contextlib.contextmanager
def world(folder: Path) -> Generator[World]:
    """Build the network around the calling thread; take it away at the end."""
    made = World(folder)
    netns.add(made.outer)
    try:
        with netns.inside(made.outer):
            try:
                made.build()
                yield made
            finally:
                made.close()
    finally:
        netns.remove(made.outer)


def until(what: str, holds: object, *, within: float = 10.0) -> None:
    """Wait until ``holds()`` is true."""
    assert callable(holds)
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.02)

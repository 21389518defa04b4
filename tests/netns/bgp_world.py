"""Nodes that speak BGP on one switch, a router outside that runs FRR too, and a client behind the router.

The agents share a Kubernetes in memory. FRR is that of moyai's image, unpacked, with the capabilities of the agent's
container. The router is the last machine; its pod is the client.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from moyai.agent.bgp.controller import BgpController
from moyai.agent.manifests import CAPABILITIES
from moyai.core.clock import BootClock
from moyai.core.paths import default_paths
from moyai.images import base_files, python_image
from moyai.images.cache import Cache
from moyai.images.recipes import debian_tree
from moyai.kube.events import EventRecorder
from moyai.kube.objects import parse_node
from moyai.kube.resources import (
    ADDRESS_POOLS,
    BGP_ADVERTISEMENTS,
    BGP_PEERS,
    ENDPOINT_SLICES,
    EVENTS,
    NODES,
    SERVICES,
    Json,
    Resource,
)
from moyai.linux import netns
from moyai.linux.frr import Frr, FrrPlace
from moyai.linux.process import run
from moyai.plan.announce.metallb_words import FROM_POOL, NAMESPACE
from moyai.plan.bgp.bgp_conf import BgpConf, PeerConf
from moyai.runtime.controllers import ControllerSetup, cache, controller_set
from moyai.runtime.metrics import Metrics
from tests.fakes.kubernetes import Kubernetes
from tests.netns.announce_world import inside
from tests.netns.pod_world import Machine, ip, node_object

ADDRESS, PORT = "10.8.0.200", 8080
ROUTER_AS, CLUSTER_AS = 64512, 64522
CLIENTS, CLIENT = "10.9.0.0/24", "10.9.0.2"


@contextmanager
def image_root() -> Generator[Path]:
    """A root folder with the packages and the users of moyai's image."""
    packages = debian_tree(Cache(default_paths().images), "python", packages=python_image.PACKAGES, on_line=lambda _line: None)
    packages.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="frr-", dir=packages.parent))
    try:
        root = made / "root"
        shutil.copytree(
            packages, root, symlinks=True, copy_function=os.link, ignore=shutil.ignore_patterns("dev", "proc", "sys")
        )
        for entry in base_files.users(groups_of_root=python_image.ROOTS_GROUPS):
            path = root / entry.path
            if entry.kind == "folder":
                path.mkdir(exist_ok=True)
            else:
                assert isinstance(entry.content, bytes)
                path.unlink(missing_ok=True)
                path.write_bytes(entry.content)
        yield root
    finally:
        shutil.rmtree(made)


def place(root: Path, machine: Machine) -> FrrPlace:
    """FRR in a machine, with the rights of the agent's container."""
    kept = ",".join(f"+{one.lower()}" for one in (*CAPABILITIES["bgp"], "SYS_CHROOT"))
    limit = ("setpriv", "--no-new-privs", "--bounding-set", f"-all,{kept}", "--inh-caps", "-all")
    return FrrPlace((*netns.prefix(machine.net), *limit, "chroot", str(root)), root, f"/run/frr-{machine.name}")


class Speaking:
    """``peer``: as the spec names the router."""

    def __init__(self, machines: list[Machine], root: Path, *, peer: PeerConf | None = None, pods: bool = True) -> None:
        *self.nodes, self.router = machines
        self.kube, self._root = Kubernetes(), root
        peers = (peer,) if peer else ()
        self.conf = BgpConf(CLUSTER_AS, "10.244.0.0/16" if pods else "", ("10.8.0.192/26",), peers=peers)
        self.frr: Frr | None = None
        self.agents: dict[str, BgpController] = {}
        self.stops: dict[str, asyncio.Event] = {}
        self.metrics: dict[str, Metrics] = {}
        for one in self.nodes:
            self.node(one)
        self.metallb(ADDRESS_POOLS, "main", addresses=["10.8.0.192/26"])
        self.metallb(BGP_ADVERTISEMENTS, "all")
        self._readdress()

    def _readdress(self) -> None:
        """The router's pod becomes the client, in a range of its own."""
        ip(self.router.net, "address flush dev cni0", "address add 10.9.0.1/24 dev cni0")
        ip(self.router.pod, "address flush dev eth0", f"address add {CLIENT}/24 dev eth0", "route add default via 10.9.0.1")
        for name in ("all", "eth0"):
            netns.sysctl(self.router.net, f"net/ipv4/conf/{name}/rp_filter", value="0")
        netns.sysctl(self.router.net, "net/ipv4/fib_multipath_hash_policy", value="1")

    # --- objects ------------------------------------------------------------------------------------------------------

    def node(self, one: Machine, *, labels: dict[str, str] | None = None, **spec: Any) -> None:
        body = node_object(one.name, one.address, pod_cidr=one.pod_cidr)
        body["metadata"] = {**body["metadata"], "labels": labels or {}}
        conditions = [{"type": "Ready", "status": "True"}]
        whole = {**body, "spec": {**body["spec"], **spec}, "status": {**body["status"], "conditions": conditions}}
        self.kube.put(NODES, whole)

    def metallb(self, resource: Resource, name: str, **spec: Any) -> None:
        self.kube.put(resource, {"metadata": {"name": name, "namespace": NAMESPACE, "uid": name}, "spec": spec})

    def peer(self, **spec: Any) -> None:
        whole = {"myASN": CLUSTER_AS, "peerASN": ROUTER_AS, "peerAddress": self.router.address, **spec}
        self.metallb(BGP_PEERS, "router", **whole)

    def service(self, name: str = "web", address: str = ADDRESS, *, local: bool = False) -> None:
        meta = {"name": name, "namespace": "default", "annotations": {FROM_POOL: "main"}}
        spec: Json = {"type": "LoadBalancer", "ports": [{"port": PORT}]}
        spec |= {"externalTrafficPolicy": "Local"} if local else {}
        self.kube.put(SERVICES, {"metadata": meta, "spec": spec, "status": {"loadBalancer": {"ingress": [{"ip": address}]}}})

    def endpoints(self, *nodes: Machine, name: str = "web") -> None:
        found = [{"nodeName": one.name, "conditions": {"ready": True}} for one in nodes]
        labels = {"kubernetes.io/service-name": name}
        self.kube.put(
            ENDPOINT_SLICES, {"metadata": {"name": name, "namespace": "default", "labels": labels}, "endpoints": found}
        )

    def events(self) -> list[str]:
        return [f"{one['reason']}: {one['message']}" for one in self.kube.all(EVENTS)]

    # --- what runs ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self, *router: str) -> AsyncGenerator[None]:
        """``router``: more lines of its BGP, before that of address families."""
        async with AsyncExitStack() as stack:
            started = Frr.running(place(self._root, self.router), on_start=lambda _daemon: None)
            self.frr = await stack.enter_async_context(started)
            assert await self.frr.configure("bfdd", FAST) == []
            assert await self.frr.configure("bgpd", self._router(router)) == []
            for one in self.nodes:
                await stack.enter_async_context(self._served(one))
                await stack.enter_async_context(self.agent(one))
            yield

    def _router(self, more: Sequence[str]) -> list[str]:
        names = [one.address for one in self.nodes]
        lines = [f"router bgp {ROUTER_AS}", "no bgp ebgp-requires-policy", "no bgp default ipv4-unicast"]
        lines += ["bgp bestpath as-path multipath-relax", "no bgp network import-check"]
        for address in names:
            lines += [f"neighbor {address} {line}" for line in (f"remote-as {CLUSTER_AS}", "timers connect 1", *more)]
        family = ["maximum-paths 16", f"network {CLIENTS}", *(f"neighbor {one} activate" for one in names)]
        return [*lines, "address-family ipv4 unicast", *family, "exit-address-family", "exit"]

    @asynccontextmanager
    async def agent(self, machine: Machine) -> AsyncGenerator[None]:
        # of one process
        metrics, stop = Metrics(), asyncio.Event()
        self.metrics[machine.name], self.stops[machine.name] = metrics, stop
        nodes = cache(self.kube, NODES, parse=parse_node, metrics=metrics)
        events = EventRecorder(self.kube, component="test")
        made = BgpController(
            kube=self.kube,
            node=machine.name,
            nodes=nodes,
            conf=self.conf,
            events=events,
            metrics=metrics,
            clock=BootClock(),
            place=place(self._root, machine),
            namespace=machine.net,
        )
        self.agents[machine.name] = made
        wanted = ControllerSetup(made.part, caches=made.caches, tasks={"FRR": made.run, "routes": made.listen})
        parts = controller_set([wanted], metrics=metrics, events=events, bind="127.0.0.1:0", shared=[nodes])
        task = asyncio.create_task(parts.run(stop))
        try:
            yield
        finally:
            stop.set()
            await task

    @asynccontextmanager
    async def _served(self, machine: Machine) -> AsyncGenerator[None]:
        """What kube-proxy does: whatever comes for an address goes to a process, which says the machine's name."""
        rules = "table ip t { chain c { type nat hook prerouting priority dstnat; ip daddr 10.8.0.192/26 redirect; }; }"
        run([*netns.prefix(machine.net), "nft", rules], timeout=20)

        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(machine.name.encode())
            writer.close()

        listening = inside(machine.net, socket.create_server)(("", PORT))
        async with await asyncio.start_server(answer, sock=listening):
            yield

    # --- what is seen -------------------------------------------------------------------------------------------------

    def hops(self, prefix: str = ADDRESS) -> set[str]:
        """The next hops of the router's kernel."""
        words = ip(self.router.net, f"route show {prefix}").split()
        return {words[n + 1] for n, word in enumerate(words) if word == "via"}

    async def until(self, wanted: Callable[[], object], within: float = 30.0) -> float:
        """Returns after how many seconds it was so."""
        start = time.monotonic()
        while not wanted():
            assert time.monotonic() - start < within, f"not within {within} s: {self.events()}"
            await asyncio.sleep(0.02)
        return time.monotonic() - start

    async def asks(self, address: str = ADDRESS, *, seconds: float = 3.0) -> str:
        """Which machine answers the client, empty for none."""
        words = ["timeout", str(seconds), "bash", "-c", f"exec 3<>/dev/tcp/{address}/{PORT} && head -c 2 <&3"]
        done = await asyncio.to_thread(run, [*netns.prefix(self.router.pod), *words], timeout=30, check=False)
        return done.stdout

    async def paths(self, prefix: str = f"{ADDRESS}/32") -> list[Json]:
        """Those that the router has."""
        assert self.frr is not None
        found: list[Json] = (await self.frr.show("bgpd", f"show bgp ipv4 unicast {prefix} json")).get("paths", [])
        return found

    async def settled(self, *machines: Machine) -> None:
        """BFD of these and of the router is up, and its packets come as often as they should: it begins with one a second."""
        for machine in (self.router, *machines):
            frr, end = Frr(place(self._root, machine), on_start=lambda _daemon: None), time.monotonic() + 20
            while not await self._fast(frr):
                assert time.monotonic() < end, f"BFD of {machine.name} does not settle"
                await asyncio.sleep(0.05)
        await asyncio.sleep(1)

    async def _fast(self, frr: Frr) -> bool:
        """The router has the nodes for neighbours; a node has the router and the other nodes."""
        peers: list[Json] = await frr.show("bfdd", "show bfd peers json")
        up = all(one["status"] == "up" and one.get("remote-transmit-interval", 1000) < 1000 for one in peers)
        return up and len(peers) == len(self.nodes)

    def addresses(self, *nodes: Machine) -> set[str]:
        return {one.address for one in nodes}


#: The router's BFD: 300 ms, three times.
FAST = ("bfd", "profile fast", "detect-multiplier 3", "receive-interval 300", "transmit-interval 300", "exit", "exit")

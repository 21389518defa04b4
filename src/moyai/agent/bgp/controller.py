"""Keeps FRR and the kernel's routes of announced prefixes as nodes, Services and MetalLB's resources demand.

Always holds: a prefix is withdrawn before anything else is done, and its way out is configured before its route comes. What FRR
refuses is reported and holds up nothing else. A daemon of FRR that ended gets its whole configuration again. The node is ready
when FRR is configured, whether or not its sessions are up: other nodes may not be there yet.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from moyai.agent.announce_caches import AnnounceCaches, is_announced
from moyai.agent.bgp.service_routes import ServiceRoutes
from moyai.agent.bgp.session_watch import SessionWatch, WantedSession
from moyai.agent.service_statuses import BGP, ServiceStatuses
from moyai.core.clock import Clock
from moyai.core.errors import Retriable
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects import Endpoints, Node, Service
from moyai.kube.objects.bgp import (
    BfdProfile,
    BgpAdvertisement,
    BgpPeer,
    CommunityNames,
    parse_bfd_profile,
    parse_bgp_advertisement,
    parse_bgp_peer,
    parse_community,
    parse_password,
)
from moyai.kube.objects.meta import part, text
from moyai.kube.resources import BFD_PROFILES, BGP_ADVERTISEMENTS, BGP_PEERS, COMMUNITIES, SECRETS, Json
from moyai.kube.watching import Kube
from moyai.linux.frr import Frr, FrrGone, FrrPlace, adjacency
from moyai.plan.announce.metallb_words import NAMESPACE
from moyai.plan.bgp.announced_prefixes import Announced, Announcing, announced
from moyai.plan.bgp.bgp_conf import BgpConf
from moyai.plan.bgp.frr_config import FrrConfig, frr_commands
from moyai.plan.bgp.router import frr_config
from moyai.plan.bgp.sessions import Remark, Sessions, Speakers, address_of, own_range, sessions
from moyai.runtime.controllers import Part, cache
from moyai.runtime.metrics import Metrics
from moyai.runtime.one_key import OneKey
from moyai.runtime.reconciler import DONE, Result

_log = logging.getLogger(__name__)


class BgpController:
    """``node``: name of this machine's Node. ``place``: where FRR is. ``namespace``: of the kernel's network, None: the
    process's own. ``run`` and ``listen`` are tasks beside the controller."""

    def __init__(
        self,
        *,
        kube: Kube,
        node: str,
        nodes: Informer[Node],
        conf: BgpConf,
        events: EventRecorder,
        metrics: Metrics,
        clock: Clock,
        shared: AnnounceCaches | None = None,
        place: FrrPlace | None = None,
        namespace: str | None = None,
    ) -> None:
        self._node, self._nodes, self._conf, self._events, self._metrics = node, nodes, conf, events, metrics
        self._place = place or FrrPlace()
        self._frr: Frr | None = None
        self._key = OneKey("bgp", relevant=self._relevant)
        self._routes = ServiceRoutes(namespace, self._key.again)
        self._watch = SessionWatch(clock, lambda: self._frr.md5_failures() if self._frr else 0)
        self._statuses = ServiceStatuses(kube, node, kind=BGP, owner=lambda: nodes.get(node))
        #: Daemon → what it is configured with.
        self._applied: dict[str, FrrConfig] = {}
        self._missing = "FRR has not started yet"
        #: A node without routers and without pods' routes by BGP has no FRR.
        self._needed = asyncio.Event()
        self._remarks: frozenset[Remark] = frozenset()
        #: Whether the mesh was larger than it should be.
        self._large = False
        self._prefixes = 0

        def of(resource: Any, parse: Any) -> Informer[Any]:
            return cache(kube, resource, parse=parse, metrics=metrics, namespace=NAMESPACE)

        self._secrets: Informer[tuple[str, str]] = of(SECRETS, _secret)
        self._peers: Informer[BgpPeer] = of(BGP_PEERS, parse_bgp_peer)
        self._adverts: Informer[BgpAdvertisement] = of(BGP_ADVERTISEMENTS, parse_bgp_advertisement)
        self._profiles: Informer[BfdProfile] = of(BFD_PROFILES, parse_bfd_profile)
        self._communities: Informer[CommunityNames] = of(COMMUNITIES, parse_community)
        self._shared = shared or AnnounceCaches.make(kube, metrics)
        metallb = (self._peers, self._adverts, self._profiles, self._communities)
        # without ranges the cluster has no such kinds
        self.caches: tuple[Informer[Any], ...] = (self._secrets,)
        if conf.ranges:
            self.caches += (*self._shared.all, *metallb)
        self._key.follow(*self.caches, nodes)
        self.part = Part("bgp", self.reconcile, watch=self._key.start)
        metrics.describe("moyai_bgp_sessions", "BGP sessions of this node by state")
        metrics.describe("moyai_bgp_session_downs_total", "How often a BGP session of this node went down")
        metrics.describe("moyai_bgp_prefixes", "Prefixes of Services that this node announces by BGP")
        metrics.describe("moyai_frr_restarts_total", "How often one of FRR's daemons has ended and was started again")
        metrics.gauge(
            "moyai_bgp_sessions",
            lambda: {(("state", "up"),): float(self._watch.up), (("state", "down"),): float(self._watch.down)},
        )
        metrics.counter("moyai_bgp_session_downs_total", lambda: {(): float(self._watch.downs)})
        metrics.gauge("moyai_bgp_prefixes", lambda: {(): float(self._prefixes)})
        metrics.counter(
            "moyai_frr_restarts_total",
            lambda: {(("daemon", name),): float(n) for name, n in (self._frr.restarts if self._frr else {}).items()},
        )

    def not_ready(self) -> str:
        """Why the node has no BGP, empty where it has."""
        return self._missing

    @property
    def sessions_up(self) -> int:
        return self._watch.up

    def pid(self, daemon: str) -> int:
        """Of one of FRR's daemons, 0 while it does not run."""
        return self._frr.pid(daemon) if self._frr else 0

    async def listen(self) -> None:
        """Runs beside the controller: what the kernel reports of its routes."""
        await self._routes.listen()

    async def run(self) -> None:
        """Runs beside the controller: FRR, to the end."""
        await self._needed.wait()
        async with Frr.running(self._place, on_start=self._started, on_line=self._line) as frr:
            self._frr = frr
            self._key.again()
            await asyncio.Event().wait()

    async def reconcile(self, _key: str) -> Result:
        """Raises Retriable where FRR ends meanwhile, or where the kernel refuses a route."""
        me = self._nodes.get(self._node)
        if not self._routes.open:
            return DONE  # they report when they are
        if me is None or not address_of(me):
            self._missing = "the Node has no InternalIP yet"
            return DONE
        if self._conf.pods and not own_range(me):
            self._missing = "the Node has no pod range yet"
            return DONE
        now, profiles = self._sessions(me)
        if now.asn:
            self._needed.set()
        if self._frr is None:
            return await self._without_frr(now)
        said = self._announced(now)
        numbers = {prefix: one.number for prefix, one in said.prefixes.items()}
        wanted = frr_config(
            now, said.prefixes.values(), address=address_of(me), pods=own_range(me), conf=self._conf, profiles=profiles
        )
        try:
            await self._routes.withdraw(numbers)
            self._watch.wanted(
                {
                    **{one.address: WantedSession(f"node {one.node}", node=True) for one in now.mesh},
                    **{
                        one.peer.address: WantedSession(f"router {one.peer.name}", secured=bool(one.password))
                        for one in now.peers
                    },
                }
            )
            refused = await self._configure(self._frr, wanted)
            await self._routes.bring(numbers)
        except FrrGone as error:
            self._missing = str(error)
            raise Retriable(str(error)) from error
        except OSError as error:
            self._missing = f"the kernel refuses: {error.strerror}"
            raise Retriable(self._missing) from error
        self._prefixes = len(numbers)
        self._missing = ""
        for one in refused:
            self._warn("BgpRefused", f"FRR refuses {one}")
        self._report(now, said)
        for with_node, message in self._watch.overdue():
            if with_node:
                _log.warning("%s", message)
            else:
                self._warn("BgpSessionDown", message)
        if self._conf.ranges:
            await self._statuses.sync(said.told)
        return Result(requeue_after=self._watch.waiting)

    async def _without_frr(self, now: Sessions) -> Result:
        """FRR reports when it has started."""
        if not now.asn:
            self._missing = ""
            self._report(now, Announced())
            await self._routes.bring({})
            if self._conf.ranges:
                await self._statuses.sync({})
        return DONE

    async def _configure(self, frr: Frr, wanted: FrrConfig) -> list[str]:
        refused: list[str] = []
        for daemon in ("bfdd", "bgpd"):
            before = self._applied.get(daemon, FrrConfig())
            # what is half done is not known: the daemon that ended says so, and starts from nothing
            commands = frr_commands(before, wanted)
            said = await frr.configure(daemon, commands.bfdd if daemon == "bfdd" else commands.bgpd)
            refused += [f"{one.command!r}: {one.why}" for one in said]
            self._applied[daemon] = wanted
        return refused

    def _sessions(self, me: Node) -> tuple[Sessions, dict[str, BfdProfile]]:
        profiles = {one.name: one for one in self._profiles.all()}
        secrets = dict(self._secrets.all())
        return sessions(me, Speakers(self._nodes.all(), self._peers.all(), profiles, secrets), conf=self._conf), profiles

    def _announced(self, now: Sessions) -> Announced:
        if not self._conf.ranges:
            return Announced()
        situation = Announcing(
            services=self._shared.announced(),
            nodes=self._nodes.all(),
            pools=self._shared.pools.all(),
            advertisements=self._adverts.all(),
            endpoints=self._shared.endpoints(),
            peers=[one.peer.name for one in now.peers],
            known=[one.name for one in (*self._peers.all(), *self._conf.peers)],
            names={name: value for one in self._communities.all() for name, value in one.values.items()},
            ranges=self._conf.ranges,
        )
        return announced(self._node, situation)

    # --- what is said -------------------------------------------------------------------------------------------------

    def _report(self, now: Sessions, said: Announced) -> None:
        """Of objects that all nodes see alike, the first node by name speaks."""
        remarks = frozenset((*now.remarks, *said.remarks))
        first = min((one.name for one in self._nodes.all()), default="")
        for one in remarks - self._remarks:
            _log.warning("%s %s: %s", one.about.kind, one.about.name, one.message)
            if self._node == first:
                reason = "NotUsed" if one.warning else "NotSupported"
                self._events.event(one.about, "Warning", reason=reason, message=one.message)
        if now.too_many and not self._large and self._node == first:
            message = f"{len(now.mesh)} BGP sessions a node: label some nodes with {self._conf.reflector}"
            self._warn("BgpMeshLarge", message)
        self._remarks, self._large = remarks, now.too_many

    def _warn(self, reason: str, message: str) -> None:
        _log.warning("%s", message)
        node = self._nodes.get(self._node)
        if node is not None:
            self._events.event(node.reference, "Warning", reason=reason, message=message)

    # --- when ---------------------------------------------------------------------------------------------------------

    def _started(self, daemon: str) -> None:
        self._applied.pop(daemon, None)
        if daemon == "bgpd":
            self._watch.all_down()
        self._key.again()

    def _line(self, daemon: str, line: str) -> None:
        _log.info("%s: %s", daemon, line)
        change = adjacency(line) if daemon == "bgpd" else None
        if change and (said := self._watch.heard(change)):
            node = self._nodes.get(self._node)
            if node is not None and not self._watch.of_node(change.neighbour):
                # each node that goes would make an event of each other node
                kind, reason = ("Normal", "BgpSessionUp") if change.up else ("Warning", "BgpSessionDown")
                self._events.event(node.reference, kind, reason=reason, message=said)
            self._key.again()

    def _relevant(self, fact: object) -> object:
        """What of an object matters here, None for nothing. A heartbeat of a Node is no change."""
        match fact:
            case Node():
                network = (fact.internal_ips, fact.pod_cidrs, fact.network_unavailable)
                return (fact.name, network, fact.ready, fact.deleting, fact.cordoned, dict(fact.labels))
            case Service():
                if not is_announced(fact):
                    return None
                return (fact.key, fact.ingress, dict(fact.labels), fact.local_traffic, fact.deleting)
            case Endpoints():
                service = self._shared.services.get(fact.service)
                return fact.announced if service is None or is_announced(service) else None
            case _:
                return fact


def _secret(found: Json) -> tuple[str, str]:
    return text(part(found, "metadata"), "name"), parse_password(found)

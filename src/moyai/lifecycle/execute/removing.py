"""Carries out the steps that take something away, each until the cloud shows its effect, and the wait for what such a step
brings about elsewhere.

Always holds: what is gone is success; what the cloud refuses as in use is asked for again for a while; a volume is never taken
off a server that is somebody else's. Thread-safe: steps run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from moyai.cloud.load_balancers import BalancerState
from moyai.cloud.model import DiskState, Power, Snapshot, Volume
from moyai.cloud.service_balancers import HasServiceBalancers
from moyai.core.backoff import Backoff
from moyai.core.clock import Clock
from moyai.core.errors import Conflict, NotFound, Retriable, Terminal
from moyai.core.ids import CLUSTER_TAG
from moyai.core.keys import Kind
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.lifecycle.execute.context import Context, Handler, handles
from moyai.plan import steps as s

#: Seconds after which a deletion that the cloud keeps refusing as "in use" is given up.
BUSY_TIMEOUT = 60.0
GONE_TIMEOUT = 120.0
T = TypeVar("T")
_BACKOFF = Backoff(base=0.2, factor=1.5, ceiling=2.0)


def retry_while_busy(call: Callable[[], T], clock: Clock) -> T:
    """Call again while the cloud says that something still uses the object, up to ``BUSY_TIMEOUT`` seconds."""
    return until(call, clock=clock, timeout=BUSY_TIMEOUT, pause=_BACKOFF, retry=(Conflict, Retriable))


class Removing:
    def __init__(self, context: Context) -> None:
        self._context, self._cloud, self._clock = context, context.cloud, context.clock

    def handlers(self) -> Mapping[type[s.Step], Handler]:
        return dict(
            [
                handles(s.Delete, self._delete),
                handles(s.RemoveRoutes, self._routes),
                handles(s.RemoveInterface, self._interface),
                handles(s.StopServer, self._stop),
                handles(s.DetachVolume, self._detach),
                handles(s.WaitFree, self._for_free),
            ]
        )

    def _routes(self, step: s.RemoveRoutes, _: Progress) -> None:
        retry_while_busy(lambda: self._cloud.pod_routing.remove_routes(step.router_id, step.routes), self._clock)

    def _interface(self, step: s.RemoveInterface, _: Progress) -> None:
        retry_while_busy(lambda: self._cloud.routers.remove_router_interface(step.router_id, step.subnet_id), self._clock)

    def _stop(self, step: s.StopServer, progress: Progress) -> None:
        if all(self._off(volume, step.server_id) for volume in step.volume_ids):
            progress.progress("its volumes are detached")
            return
        self._cloud.machines.stop_server(step.server_id)
        self._wait_for(lambda: self._stopped(step.server_id), f"{step.key} to stop")

    def _detach(self, step: s.DetachVolume, _: Progress) -> None:
        if self._off(step.volume_id, step.server_id):
            return
        retry_while_busy(lambda: self._cloud.machines.detach_volume(step.server_id, step.volume_id), self._clock)
        self._wait_for(lambda: self._off(step.volume_id, step.server_id), f"{step.key} to be detached from {step.server}")

    def _delete(self, step: s.Delete, _: Progress) -> None:
        cloud, identity = self._cloud, step.object_id
        calls: dict[Kind, Callable[[str], None]] = {
            Kind.NETWORK: cloud.networks.delete_network,
            Kind.SUBNET: cloud.networks.delete_subnet,
            Kind.ROUTER: cloud.routers.delete_router,
            Kind.PORT: cloud.networks.delete_port,
            Kind.SECURITY_GROUP: cloud.firewall.delete_security_group,
            Kind.FLOATING_IP: cloud.addresses.delete_floating_ip,
            Kind.KEY_PAIR: cloud.machines.delete_keypair,
            Kind.CREDENTIAL: cloud.credentials.delete_credential,
            Kind.SERVER: cloud.machines.delete_server,
            Kind.SPREAD_GROUP: cloud.machines.delete_spread_group,
            Kind.VOLUME: cloud.disks.delete_volume,
            Kind.SNAPSHOT: cloud.disks.delete_snapshot,
            Kind.LOAD_BALANCER: self._balancer,
            Kind.ENTRANCE: cloud.entrances.delete_entrance,
        }
        if step.kind is Kind.VOLUME:
            self._leave_servers(identity, name=step.name)
        retry_while_busy(lambda: calls[step.kind](identity), self._clock)
        if step.kind is Kind.SERVER:
            self._wait_for(lambda: self._server_gone(identity), f"{step.key} to go")
        elif step.kind is Kind.LOAD_BALANCER and not isinstance(cloud, HasServiceBalancers):
            self._wait_for(lambda: self._balancer_gone(identity), f"{step.key} to go")
        elif step.kind in (Kind.VOLUME, Kind.SNAPSHOT):
            show = cloud.disks.volume if step.kind is Kind.VOLUME else cloud.disks.snapshot
            self._wait_for(lambda: self._disk_gone(step.kind, identity, show=show), f"{step.key} to go")
        self._forget(step)

    def _balancer(self, identity: str) -> None:
        """A load balancer that a controller made, or one that the cloud made for a Service itself; returns when it is gone."""
        if isinstance(self._cloud, HasServiceBalancers):
            self._cloud.service_balancers.remove_balancer(identity)
        else:
            self._cloud.load_balancers.delete(identity)

    def _forget(self, step: s.Delete) -> None:
        self._context.forget(step.key)
        if step.kind is Kind.PORT and self._context.record is not None:
            # the port is the last of a node that leaves: its index is free
            self._context.record.release(step.name)
            self._context.record.seen([step.name])

    def _server_gone(self, server_id: str) -> bool:
        try:
            server = self._cloud.machines.server(server_id)
        except NotFound:
            return True
        if server.delete_failed:
            raise Terminal(f"server {server.name} cannot be deleted: {server.fault}")
        return server.power is Power.GONE

    def _balancer_gone(self, identity: str) -> bool:
        try:
            state = self._cloud.load_balancers.head(identity).state
        except NotFound:
            return True
        if state not in (BalancerState.BUSY, BalancerState.DELETING, BalancerState.DELETED):
            # a change that came in between put it back: ask again
            self._cloud.load_balancers.delete(identity)
        return state is BalancerState.DELETED

    def _for_free(self, step: s.WaitFree, _: Progress) -> None:
        self._leave_servers(step.volume_id, name=step.volume)
        self._wait_for(lambda: self._off(step.volume_id), f"volume {step.volume} to be detached")

    def _leave_servers(self, volume_id: str, *, name: str) -> None:
        """Take the volume off servers that do not exist. Terminal where it is at somebody else's, which keeps it."""
        compute, volumes = self._cloud.machines, self._cloud.disks
        try:
            attachments = volumes.volume(volume_id).attachments
        except NotFound:
            return
        for attachment in attachments:
            try:
                server = compute.server(attachment.server_id)
            except NotFound:
                if attachment.id:
                    volumes.forget_attachment(attachment.id)
                continue
            if server.metadata.get(CLUSTER_TAG) != self._context.uid:
                raise Terminal(f"volume {name} is attached to server {server.name}, which is not the cluster's")

    def _off(self, volume_id: str, server_id: str = "") -> bool:
        """Whether the volume is at this server (empty: at any) no more."""
        try:
            volume = self._cloud.disks.volume(volume_id)
        except NotFound:
            return True
        if server_id:
            return server_id not in volume.attached_server_ids
        return volume.state is not DiskState.IN_USE and not volume.state.moving

    def _stopped(self, server_id: str) -> bool:
        try:
            return self._cloud.machines.server(server_id).power is not Power.RUNNING
        except NotFound:
            return True

    def _disk_gone(self, kind: Kind, identity: str, *, show: Callable[[str], Volume | Snapshot]) -> bool:
        try:
            disk = show(identity)
        except NotFound:
            return True
        if disk.state.broken:
            raise Terminal(f"{kind} {disk.name or identity} cannot be deleted: it is in {disk.status}")
        return False

    def _wait_for(self, done: Callable[[], bool], what: str) -> None:
        def late(missing: NotYet) -> Terminal:
            reason = f": {missing.missing}" if missing.error else ""
            return Terminal(f"waited {GONE_TIMEOUT:.0f} s for {what}{reason}")

        until(lambda: done() or NotYet(what), clock=self._clock, timeout=GONE_TIMEOUT, pause=_BACKOFF, late=late)

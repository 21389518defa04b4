"""Carries out the steps that take something away, each until the cloud no longer has it.

Always holds: what is gone is success; what the cloud refuses as in use is asked for again for a while; a volume is never taken
off a server that is somebody else's. Thread-safe: steps run side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moyai.cloud.capabilities import Cloud
from moyai.cloud.load_balancers import BalancerState
from moyai.cloud.model import DiskState, Power, Snapshot, Volume
from moyai.core.backoff import Backoff
from moyai.core.clock import Clock
from moyai.core.errors import Conflict, NotFound, Retriable, Terminal
from moyai.core.ids import CLUSTER_TAG
from moyai.core.progress import Step as Progress
from moyai.plan import steps as s
from moyai.plan.steps import Step

#: Seconds after which a deletion that the cloud keeps refusing as "in use" is given up.
BUSY_TIMEOUT = 60.0
GONE_TIMEOUT = 120.0
_BACKOFF = Backoff(base=0.2, factor=1.5, ceiling=2.0)


class Remover:
    """``forget_node``: deletes the Node object of a machine that is gone, where there is a cluster that has one."""

    def __init__(self, cloud: Cloud, *, uid: str, clock: Clock, forget_node: Callable[[str], None] | None = None) -> None:
        self.cloud = cloud
        self.uid = uid
        self.clock = clock
        self._forget_node = forget_node

    def run(self, step: Step, progress: Progress) -> None:
        match step:
            case s.ClearRoutes():
                self.insist(lambda: self.cloud.pod_routing.remove_routes(step.router_id, step.routes))
            case s.RemoveInterface():
                self.insist(lambda: self.cloud.networks.remove_router_interface(step.router_id, step.subnet_id))
            case s.StopServer():
                self.cloud.machines.stop_server(step.server_id)
                self._wait_for(lambda: self._stopped(step.server_id), f"server {step.name} to stop")
            case s.DetachVolume():
                self.insist(lambda: self.cloud.machines.detach_volume(step.server_id, step.volume_id))
                self._wait_for(
                    lambda: self._off(step.volume_id, step.server_id), f"volume {step.name} to come off {step.server}"
                )
            case s.Delete():
                self._delete(step, progress)
            case _:
                raise AssertionError(f"no way to carry out {step}")

    def _delete(self, step: s.Delete, progress: Progress) -> None:
        cloud, identity = self.cloud, step.object_id
        calls: dict[str, Callable[[str], None]] = {
            "network": cloud.networks.delete_network,
            "subnet": cloud.networks.delete_subnet,
            "router": cloud.networks.delete_router,
            "port": cloud.networks.delete_port,
            "security group": cloud.firewall.delete_security_group,
            "floating ip": cloud.addresses.delete_floating_ip,
            "key pair": cloud.machines.delete_keypair,
            "credential": cloud.credentials.delete_credential,
            "server": cloud.machines.delete_server,
            "volume": cloud.disks.delete_volume,
            "snapshot": cloud.disks.delete_snapshot,
            "load balancer": cloud.load_balancers.delete,
        }
        if step.kind == "volume":
            self._free(step)
        self.insist(lambda: calls[step.kind](identity))
        if step.kind == "server":
            self.wait_gone(identity)
            if self._forget_node is not None:
                self._forget_node(step.name)
        elif step.kind == "load balancer":
            self._wait_for(lambda: self._balancer_gone(identity), f"load balancer {step.name} to go")
        elif step.kind in ("volume", "snapshot"):
            show = cloud.disks.volume if step.kind == "volume" else cloud.disks.snapshot
            self._wait_for(lambda: self._disk_gone(step.kind, identity, show), f"{step.kind} {step.name} to go")

    def wait_gone(self, server_id: str) -> None:
        def gone() -> bool:
            try:
                server = self.cloud.machines.server(server_id)
            except NotFound:
                return True
            if server.delete_failed:
                raise Terminal(f"server {server.name} cannot be deleted: {server.fault}")
            return server.power is Power.GONE

        self._wait_for(gone, "a server to go")

    def _balancer_gone(self, identity: str) -> bool:
        try:
            state = self.cloud.load_balancers.head(identity).state
        except NotFound:
            return True
        if state not in (BalancerState.BUSY, BalancerState.DELETING, BalancerState.DELETED):
            # a change that came in between put it back: ask again
            self.cloud.load_balancers.delete(identity)
        return state is BalancerState.DELETED

    def _free(self, step: s.Delete) -> None:
        """Wait until the volume is at no server; it is taken off servers that do not exist, never off somebody else's."""
        compute, volumes = self.cloud.machines, self.cloud.disks
        try:
            attachments = volumes.volume(step.object_id).attachments
        except NotFound:
            return
        for attachment in attachments:
            try:
                server = compute.server(attachment.server_id)
            except NotFound:
                if attachment.id:
                    volumes.forget_attachment(attachment.id)
                continue
            if server.metadata.get(CLUSTER_TAG) != self.uid:
                raise Terminal(f"volume {step.name} is attached to server {server.name}, which is not the cluster's")
        self._wait_for(lambda: self._off(step.object_id), f"volume {step.name} to come free")

    def _off(self, volume_id: str, server_id: str = "") -> bool:
        """Whether the volume is at this server (empty: at any) no more."""
        try:
            volume = self.cloud.disks.volume(volume_id)
        except NotFound:
            return True
        if server_id:
            return server_id not in volume.attached_server_ids
        return volume.state is not DiskState.IN_USE and not volume.state.moving

    def _stopped(self, server_id: str) -> bool:
        try:
            return self.cloud.machines.server(server_id).power is not Power.RUNNING
        except NotFound:
            return True

    def _disk_gone(self, kind: str, identity: str, show: Callable[[str], Volume | Snapshot]) -> bool:
        try:
            disk = show(identity)
        except NotFound:
            return True
        if disk.state.broken:
            raise Terminal(f"{kind} {disk.name or identity} cannot be deleted: it is in {disk.status}")
        return False

    # ---- waiting

    def insist(self, call: Callable[[], Any]) -> Any:
        """Call again while the cloud says that something still uses the object, up to ``BUSY_TIMEOUT`` seconds."""
        end = self.clock.monotonic() + BUSY_TIMEOUT
        attempt = 0
        while True:
            try:
                return call()
            except (Conflict, Retriable):
                if self.clock.monotonic() >= end:
                    raise
            self.clock.sleep(_BACKOFF.delay(attempt))
            attempt += 1

    def _wait_for(self, done: Callable[[], bool], what: str) -> None:
        end = self.clock.monotonic() + GONE_TIMEOUT
        attempt = 0
        while True:
            try:
                if done():
                    return
            except Retriable as error:
                if self.clock.monotonic() >= end:
                    raise Terminal(f"waited {GONE_TIMEOUT:.0f} s for {what}: {error.message}") from error
            if self.clock.monotonic() >= end:
                raise Terminal(f"waited {GONE_TIMEOUT:.0f} s for {what}")
            self.clock.sleep(_BACKOFF.delay(attempt))
            attempt += 1

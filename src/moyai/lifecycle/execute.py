"""Carries out plan steps through the cloud's protocols.

Always holds: the intent is on disk before anything is made, and the id at once afterwards; a step that finds its work done is
content. What a step makes is known to later ones by its key. Thread-safe: steps run side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from moyai.cloud.loadbalancer import PENDING
from moyai.cloud.model import AddressPair
from moyai.cloud.protocols import Cloud
from moyai.core.backoff import Backoff
from moyai.core.clock import Clock
from moyai.core.errors import Conflict, MoyaiError, NotFound, Retriable, Terminal
from moyai.core.ids import CLUSTER_TAG, POD_CIDR_KEY, POOL_KEY, ROLE_KEY, cluster_tag
from moyai.core.progress import Step as Progress
from moyai.lifecycle.record import Record
from moyai.plan import steps as s
from moyai.plan.steps import Step

#: Roles that the cloud controller manager needs; a cloud that does not have them gives it all of its user's.
CREDENTIAL_ROLES = ("member", "load-balancer_member")
#: Seconds after which a deletion that the cloud keeps refusing as "in use" is given up.
BUSY_TIMEOUT = 60.0
GONE_TIMEOUT = 120.0
_BACKOFF = Backoff(base=0.2, factor=1.5, ceiling=2.0)


@dataclass(frozen=True)
class ServerOrder:
    """What a server's making needs beyond its step: told by ``up``, which knows the cluster's secrets."""

    user_data: str = field(repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


@dataclass(frozen=True)
class Hooks:
    """What only ``up`` can do: user data for a server step, draining a node, deleting a Node object whose machine is gone."""

    server_order: Callable[[s.CreateServer, Executor], ServerOrder]
    drain_node: Callable[[str, Progress], None]
    forget_node: Callable[[str], None]
    public_key: str = ""


class Executor:
    """Runs the steps of one plan. ``known``: key → id, of what was there and of what is made on the way."""

    def __init__(
        self,
        cloud: Cloud,
        record: Record | None,
        *,
        uid: str,
        known: Mapping[str, str],
        clock: Clock,
        hooks: Hooks | None = None,
    ) -> None:
        self.cloud = cloud
        self.record = record
        self.uid = uid
        self.tags = (cluster_tag(uid),)
        self.clock = clock
        self._hooks = hooks
        self._known = dict(known)
        self._lock = threading.Lock()
        self.results: dict[str, Any] = {}

    def id(self, key: str) -> str:
        """The id of the object that ``key`` stands for; it is there or was made by an earlier step."""
        with self._lock:
            return self._known[key]

    def knows(self, key: str) -> bool:
        with self._lock:
            return key in self._known

    def run(self, step: Step, progress: Progress) -> Any:
        """Carry out one step; returns the object made, if any."""
        match step:
            case s.Delete() | s.RemoveInterface() | s.ClearRoutes():
                return self._remove(step, progress)
            case s.CreateServer():
                return self._server(step, progress)
            case _:
                return self._make(step, progress)

    # ---- making

    def _make(self, step: Step, progress: Progress) -> Any:
        network, tags = self.cloud.network, self.tags
        match step:
            case s.CreateNetwork():
                return self._create(step.key, step.name, lambda: network.create_network(name=step.name, tags=tags))
            case s.CreateSubnet():
                return self._create(
                    step.key,
                    step.name,
                    lambda: network.create_subnet(
                        name=step.name,
                        network_id=self.id(s.NETWORK),
                        cidr=step.cidr,
                        dns=step.dns,
                        allocation_pools=[step.pool],
                        tags=tags,
                    ),
                )
            case s.CreateRouter():
                return self._create(step.key, step.name, lambda: network.create_router(name=step.name, tags=tags))
            case s.SetGateway():
                return network.set_router_gateway(self.id(s.ROUTER), step.network_id)
            case s.AddInterface():
                return network.add_router_interface(self.id(s.ROUTER), self.id(s.SUBNET))
            case s.CreateGroup():
                text = f"moyai cluster, {step.role}"
                return self._create(
                    step.key,
                    step.name,
                    lambda: network.create_security_group(name=step.name, description=text, tags=tags),
                )
            case s.SetRules():
                return self._rules(step)
            case s.CreatePort():
                return self._port(step)
            case s.SetPairs():
                return network.update_port(step.port_id, address_pairs=step.pairs)
            case s.ChangeRoutes():
                if step.remove:
                    network.remove_routes(self.id(s.ROUTER), step.remove)
                return network.add_routes(self.id(s.ROUTER), step.add) if step.add else None
            case s.CreateFloatingIP():
                return self._create(
                    step.key,
                    "",
                    lambda: network.create_floating_ip(network_id=step.network_id, description=step.description, tags=tags),
                )
            case s.AttachFloatingIP():
                port = self.id(s.port_key(step.node))
                return self._insist(lambda: network.associate_floating_ip(self.id(s.FLOATING_IP), port))
            case s.Adopt():
                return network.add_tags(step.kind, step.object_id, tags)
            case s.StartServer():
                return self.cloud.compute.start_server(step.server_id)
            case s.CreateKeypair():
                return self._keypair(step)
            case s.CreateCredential():
                return self._credential(step)
            case s.DrainNode():
                assert self._hooks is not None
                return self._hooks.drain_node(step.node, progress)
            case _:
                raise AssertionError(f"no way to carry out {step}")

    def _create(self, key: str, name: str, call: Callable[[], Any]) -> Any:
        self._intend(key, name)
        made = call()
        self._made(key, str(made.id), name)
        self.results[key] = made
        return made

    def _intend(self, key: str, name: str = "") -> None:
        if self.record is not None:
            self.record.intend(key, name)

    def _made(self, key: str, object_id: str, name: str = "") -> None:
        with self._lock:
            self._known[key] = object_id
        if self.record is not None:
            self.record.made(key, object_id, name)

    def _port(self, step: s.CreatePort) -> Any:
        node = step.node
        return self._create(
            step.key,
            node.name,
            lambda: self.cloud.network.create_port(
                name=node.name,
                network_id=self.id(s.NETWORK),
                subnet_id=self.id(s.SUBNET),
                fixed_ip=node.address,
                security_group_ids=[self.id(s.group_key(node.role))],
                address_pairs=[AddressPair(node.pod_cidr)],
                tags=self.tags,
            ),
        )

    def _rules(self, step: s.SetRules) -> None:
        rules = [
            replace(
                item.rule,
                group_id=self.id(s.group_key(item.role)),
                remote_group_id=self.id(s.group_key(item.remote_role)) if item.remote_role else None,
            )
            for item in step.add
        ]
        if rules:
            self.cloud.network.create_security_group_rules(rules)
        for rule_id in step.remove:
            self.cloud.network.delete_security_group_rule(rule_id)

    def _keypair(self, step: s.CreateKeypair) -> None:
        assert self._hooks is not None
        self._intend(step.key, step.name)
        try:
            self.cloud.compute.create_keypair(step.name, self._hooks.public_key)
        except Conflict:
            # one of an earlier try, perhaps with another key: nobody else has this name, the UID is in it
            self.cloud.compute.delete_keypair(step.name)
            self.cloud.compute.create_keypair(step.name, self._hooks.public_key)
        self._made(step.key, step.name, step.name)

    def _credential(self, step: s.CreateCredential) -> tuple[str, str]:
        assert self.record is not None
        identity = self.cloud.identity
        stale = step.stale_id or identity.application_credentials(name_prefix=step.name).get(step.name)
        if stale:
            identity.delete_application_credential(stale)
        self._intend(step.key, step.name)
        text = f"cloud controller manager of moyai cluster {self.record.name}"
        try:
            made = identity.create_application_credential(name=step.name, roles=CREDENTIAL_ROLES, description=text)
        except (Retriable, NotFound):
            raise
        except Terminal:
            made = identity.create_application_credential(name=step.name, roles=(), description=text)
        self.record.keep_secret("credential", made[1])
        self._made(step.key, made[0], step.name)
        # only a credential whose secret is on disk is worth keeping: the planner asks for this key
        self.record.intend(f"{s.CREDENTIAL} secret")
        return made

    def _server(self, step: s.CreateServer, progress: Progress) -> Any:
        assert self._hooks is not None
        compute, node = self.cloud.compute, step.node
        if step.replaces:
            progress.progress(f"removing the broken one: {step.why}")
            compute.delete_server(step.replaces)
            self._wait_gone(step.replaces)
        if step.forget:
            self._hooks.forget_node(node.name)
        order = self._hooks.server_order(step, self)
        metadata = {
            CLUSTER_TAG: self.uid,
            ROLE_KEY: node.role,
            POOL_KEY: node.pool,
            POD_CIDR_KEY: node.pod_cidr,
            **order.metadata,
        }
        return self._create(
            step.key,
            node.name,
            lambda: compute.create_server(
                name=node.name,
                image_id=step.image_id,
                flavor_id=step.flavor_id,
                port_ids=[self.id(s.port_key(node.name))],
                user_data=order.user_data,
                zone=node.zone,
                key_name=self.id(s.KEYPAIR),
                metadata=metadata,
                tags=self.tags,
            ),
        )

    # ---- removing

    def _remove(self, step: Step, progress: Progress) -> None:
        network = self.cloud.network
        match step:
            case s.ClearRoutes():
                self._insist(lambda: network.remove_routes(step.router_id, step.routes))
            case s.RemoveInterface():
                self._insist(lambda: network.remove_router_interface(step.router_id, step.subnet_id))
            case s.Delete():
                self._delete(step, progress)
            case _:
                raise AssertionError(f"no way to carry out {step}")

    def _delete(self, step: s.Delete, progress: Progress) -> None:
        cloud, network, identity = self.cloud, self.cloud.network, step.object_id
        calls: dict[str, Callable[[str], None]] = {
            "network": network.delete_network,
            "subnet": network.delete_subnet,
            "router": network.delete_router,
            "port": network.delete_port,
            "security group": network.delete_security_group,
            "floating ip": network.delete_floating_ip,
            "key pair": cloud.compute.delete_keypair,
            "credential": cloud.identity.delete_application_credential,
            "server": cloud.compute.delete_server,
            "volume": cloud.volumes.delete_volume,
            "load balancer": cloud.load_balancers.delete,
        }
        if step.kind == "volume":
            self._wait_for(lambda: self._detached(identity), f"volume {step.name} to come free")
        self._insist(lambda: calls[step.kind](identity))
        if step.kind == "server":
            self._wait_gone(identity)
            if self._hooks is not None:
                self._hooks.forget_node(step.name)
        elif step.kind == "load balancer":
            self._wait_for(lambda: self._balancer_gone(identity), f"load balancer {step.name} to go")
        elif step.kind == "volume":
            self._wait_for(lambda: self._volume_gone(identity), f"volume {step.name} to go")

    def _wait_gone(self, server_id: str) -> None:
        def gone() -> bool:
            try:
                server = self.cloud.compute.server(server_id)
            except NotFound:
                return True
            if server.status == "ERROR" and server.fault and "delete" in server.fault.lower():
                raise Terminal(f"server {server.name} cannot be deleted: {server.fault}")
            return server.status in ("DELETED", "SOFT_DELETED")

        self._wait_for(gone, "a server to go")

    def _balancer_gone(self, identity: str) -> bool:
        try:
            status = self.cloud.load_balancers.status(identity).provisioning_status
        except NotFound:
            return True
        if status not in PENDING and status != "DELETED":
            # a change that came in between put it back: ask again
            self.cloud.load_balancers.delete(identity)
        return status == "DELETED"

    def _detached(self, identity: str) -> bool:
        try:
            volume = self.cloud.volumes.volume(identity)
        except NotFound:
            return True
        return volume.status not in ("in-use", "detaching")

    def _volume_gone(self, identity: str) -> bool:
        try:
            volume = self.cloud.volumes.volume(identity)
        except NotFound:
            return True
        if volume.status.startswith("error"):
            raise Terminal(f"volume {volume.name or identity} cannot be deleted: it is in {volume.status}")
        return False

    # ---- waiting

    def _insist(self, call: Callable[[], Any]) -> Any:
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


def explain(error: BaseException) -> str:
    """One line for a report."""
    return " ".join(str(error).split()) if isinstance(error, MoyaiError) else f"{type(error).__name__}: {error}"

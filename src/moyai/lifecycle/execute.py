"""Carries out plan steps through the cloud's protocols.

Always holds: the intent is on disk before anything is made, and the id at once afterwards; a step that finds its work done is
content. What a step makes is known to later ones by its key. Thread-safe: steps run side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from moyai.cloud.capabilities import Cloud
from moyai.cloud.model import SourceAddress
from moyai.core.clock import Clock
from moyai.core.errors import Conflict, MoyaiError, NotFound, Retriable, Terminal
from moyai.core.ids import CLUSTER_TAG, POD_CIDR_KEY, POOL_KEY, ROLE_KEY, cluster_tag
from moyai.core.progress import Step as Progress
from moyai.lifecycle.record import Record
from moyai.lifecycle.remove import Remover
from moyai.plan import steps as s
from moyai.plan.steps import Step

#: Credential → whose it is, and the roles that it needs; a cloud that does not have them gives it all of its user's.
CREDENTIALS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    s.CREDENTIAL: ("cloud controller manager", ("member", "load-balancer_member")),
    s.VOLUMES_CREDENTIAL: ("CSI driver", ("member",)),
}


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
        self._remover = Remover(cloud, uid=uid, clock=clock, forget_node=hooks.forget_node if hooks else None)
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
            case s.Delete() | s.RemoveInterface() | s.ClearRoutes() | s.StopServer() | s.DetachVolume():
                return self._remover.run(step, progress)
            case s.CreateServer():
                return self._server(step, progress)
            case _:
                return self._make(step, progress)

    # ---- making

    def _make(self, step: Step, progress: Progress) -> Any:
        cloud, tags = self.cloud, self.tags
        match step:
            case s.CreateNetwork():
                return self._create(step.key, step.name, lambda: cloud.networks.create_network(name=step.name, tags=tags))
            case s.CreateSubnet():
                return self._create(
                    step.key,
                    step.name,
                    lambda: cloud.networks.create_subnet(
                        name=step.name,
                        network_id=self.id(s.NETWORK),
                        cidr=step.cidr,
                        dns=step.dns,
                        allocation_pools=[step.pool],
                        tags=tags,
                    ),
                )
            case s.CreateRouter():
                return self._create(step.key, step.name, lambda: cloud.networks.create_router(name=step.name, tags=tags))
            case s.SetGateway():
                return cloud.networks.set_router_gateway(self.id(s.ROUTER), step.network_id)
            case s.AddInterface():
                return cloud.networks.add_router_interface(self.id(s.ROUTER), self.id(s.SUBNET))
            case s.CreateGroup():
                text = f"moyai cluster, {step.role}"
                return self._create(
                    step.key,
                    step.name,
                    lambda: cloud.firewall.create_security_group(name=step.name, description=text, tags=tags),
                )
            case s.SetRules():
                return self._rules(step)
            case s.CreatePort():
                return self._port(step)
            case s.SetPairs():
                return cloud.networks.update_port(step.port_id, send_from=step.pairs)
            case s.ChangeRoutes():
                if step.remove:
                    cloud.pod_routing.remove_routes(self.id(s.ROUTER), step.remove)
                return cloud.pod_routing.add_routes(self.id(s.ROUTER), step.add) if step.add else None
            case s.CreateFloatingIP():
                return self._create(
                    step.key,
                    "",
                    lambda: cloud.addresses.create_floating_ip(
                        network_id=step.network_id, description=step.description, tags=tags
                    ),
                )
            case s.AttachFloatingIP():
                port = self.id(s.port_key(step.node))
                return self._remover.insist(lambda: cloud.addresses.associate_floating_ip(self.id(s.FLOATING_IP), port))
            case s.Adopt():
                return cloud.tags.add_tags(step.kind, step.object_id, tags)
            case s.StartServer():
                return self.cloud.machines.start_server(step.server_id)
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
            lambda: self.cloud.networks.create_port(
                name=node.name,
                network_id=self.id(s.NETWORK),
                subnet_id=self.id(s.SUBNET),
                fixed_ip=node.address,
                security_group_ids=[self.id(s.group_key(node.role))],
                send_from=[SourceAddress(node.pod_cidr)],
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
            self.cloud.firewall.create_security_group_rules(rules)
        for rule_id in step.remove:
            self.cloud.firewall.delete_security_group_rule(rule_id)

    def _keypair(self, step: s.CreateKeypair) -> None:
        assert self._hooks is not None
        self._intend(step.key, step.name)
        try:
            self.cloud.machines.create_keypair(step.name, self._hooks.public_key)
        except Conflict:
            # one of an earlier try, perhaps with another key: nobody else has this name, the UID is in it
            self.cloud.machines.delete_keypair(step.name)
            self.cloud.machines.create_keypair(step.name, self._hooks.public_key)
        self._made(step.key, step.name, step.name)

    def _credential(self, step: s.CreateCredential) -> tuple[str, str]:
        assert self.record is not None
        credentials = self.cloud.credentials
        stale = step.stale_id or credentials.credentials(name_prefix=step.name).get(step.name)
        if stale:
            credentials.delete_credential(stale)
        self._intend(step.key, step.name)
        who, roles = CREDENTIALS[step.key]
        text = f"{who} of moyai cluster {self.record.name}"
        try:
            made = credentials.create_credential(name=step.name, roles=roles, description=text)
        except (Retriable, NotFound):
            raise
        except Terminal:
            made = credentials.create_credential(name=step.name, roles=(), description=text)
        self.record.keep_secret(step.key, made[1])
        self._made(step.key, made[0], step.name)
        # only a credential whose secret is on disk is worth keeping: the planner asks for this key
        self.record.intend(s.secret_key(step.key))
        return made

    def _server(self, step: s.CreateServer, progress: Progress) -> Any:
        assert self._hooks is not None
        compute, node = self.cloud.machines, step.node
        if step.replaces:
            progress.progress(f"removing the broken one: {step.why}")
            compute.delete_server(step.replaces)
            self._remover.wait_gone(step.replaces)
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


def explain(error: BaseException) -> str:
    """One line for a report."""
    return " ".join(str(error).split()) if isinstance(error, MoyaiError) else f"{type(error).__name__}: {error}"

"""Carries out the steps that make objects of the cloud."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from moyai.bootstrap.machine import ServerContent
from moyai.cloud.model import SourceAddress
from moyai.core.errors import Conflict
from moyai.core.keys import Key
from moyai.core.progress import Progress
from moyai.lifecycle.execute.context import Context, Handler, handles
from moyai.lifecycle.execute.removing import retry_while_busy
from moyai.lifecycle.record_format import SECRET_NAMES
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.graph import Made
from moyai.spec.beside import NODES


class _Object(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_Object)
#: User data and metadata of a server, from its step and from what is made so far.
Render = Callable[[s.CreateServer, Made], ServerContent]


class Making:
    """``public_key``: of the key pair that machines get. ``render``: what a server is made with."""

    def __init__(self, context: Context, *, public_key: str, render: Render) -> None:
        self._context, self._cloud, self._tags = context, context.cloud, context.tags
        self._public_key, self._render = public_key, render
        self._contents: dict[str, ServerContent] = {}

    def handlers(self) -> Mapping[type[s.Step], Handler]:
        return dict(
            [
                handles(s.CreateNetwork, self._network),
                handles(s.CreateSubnet, self._subnet),
                handles(s.CreateRouter, self._router),
                handles(s.SetGateway, self._gateway),
                handles(s.AddInterface, self._interface),
                handles(s.CreateGroup, self._group),
                handles(s.SetRules, self._rules),
                handles(s.CreatePort, self._port),
                handles(s.CreatePublicPort, self._public_port),
                handles(s.CreateEntrance, self._entrance),
                handles(s.LeadEntrance, self._lead),
                handles(s.ReserveAddress, self._reserve),
                handles(s.SetSendFrom, self._send_from),
                handles(s.AddRoutes, self._routes),
                handles(s.CreateFloatingIP, self._floating_ip),
                handles(s.AttachFloatingIP, self._attach),
                handles(s.CreateKeypair, self._keypair),
                handles(s.CreateSpreadGroup, self._spread_group),
                handles(s.CreateCredential, self._credential),
                handles(s.HandOverCredential, self._hand_over),
                handles(s.CreateServer, self._server),
                handles(s.StartServer, self._start),
                handles(s.ResumeServer, self._resume),
                handles(s.RestartServer, self._restart),
                handles(s.Adopt, self._adopt),
            ]
        )

    def _create(self, key: Key, name: str, *, call: Callable[[], T]) -> T:
        self._context.intend(key, name)
        made = call()
        self._context.keep(key, made.id, name=name)
        return made

    # ---- network

    def _network(self, step: s.CreateNetwork, _: Progress) -> None:
        self._context.intend(step.key, step.name)
        made = self._cloud.networks.create_network(name=step.name, tags=self._tags)
        # nodes' pods go by the cluster's own network
        self._context.keep(step.key, made.id, name=step.name, mtu=0 if step.key.name else made.mtu)

    def _subnet(self, step: s.CreateSubnet, _: Progress) -> None:
        self._create(
            step.key,
            step.name,
            call=lambda: self._cloud.networks.create_subnet(
                name=step.name,
                network_id=self._context.id(keys.network(step.key.name)),
                cidr=step.cidr,
                dns=step.dns,
                allocation_pools=[step.pool],
                gateway=step.gateway,
                tags=self._tags,
            ),
        )

    def _router(self, step: s.CreateRouter, _: Progress) -> None:
        self._create(step.key, step.name, call=lambda: self._cloud.routers.create_router(name=step.name, tags=self._tags))

    def _gateway(self, step: s.SetGateway, _: Progress) -> None:
        self._cloud.routers.set_router_gateway(self._context.id(keys.ROUTER), step.network_id)

    def _interface(self, step: s.AddInterface, _: Progress) -> None:
        router, subnet = self._context.id(keys.ROUTER), self._context.id(keys.subnet(step.key.name))
        self._cloud.routers.add_router_interface(router, subnet)

    def _routes(self, step: s.AddRoutes, _: Progress) -> None:
        self._cloud.pod_routing.add_routes(self._context.id(keys.ROUTER), step.routes)

    def _group(self, step: s.CreateGroup, _: Progress) -> None:
        text = f"moyai cluster, {step.role}"
        self._create(
            step.key,
            step.name,
            call=lambda: self._cloud.firewall.create_security_group(name=step.name, description=text, tags=self._tags),
        )

    def _rules(self, step: s.SetRules, _: Progress) -> None:
        rules = [
            replace(
                item.rule,
                group_id=self._context.id(keys.security_group(item.role)),
                remote_group_id=self._context.id(keys.security_group(item.remote_role)) if item.remote_role else None,
            )
            for item in step.add
        ]
        if rules:
            self._cloud.firewall.create_security_group_rules(rules)
        for rule_id in step.remove:
            self._cloud.firewall.delete_security_group_rule(rule_id)

    def _port(self, step: s.CreatePort, _: Progress) -> None:
        node = step.node
        groups = [self._context.id(keys.security_group(node.role))]
        self._create_port(
            step.key,
            node.name,
            address="" if node.guessed else node.address,
            groups=groups,
            send_from=step.send_from,
            network=node.network,
        )

    def _public_port(self, step: s.CreatePublicPort, _: Progress) -> None:
        group = self._context.id(keys.security_group(step.node.role))
        self._create(
            step.key,
            step.key.name,
            call=lambda: self._cloud.networks.create_port(
                name=step.key.name,
                network_id=step.network_id,
                subnet_id="",
                security_group_ids=[group],
                tags=self._tags,
            ),
        )

    def _reserve(self, step: s.ReserveAddress, _: Progress) -> None:
        self._create_port(step.key, step.name, address=step.address)

    def _create_port(
        self,
        key: Key,
        name: str,
        *,
        address: str,
        groups: Sequence[str] = (),
        send_from: Sequence[SourceAddress] = (),
        network: str = NODES,
    ) -> None:
        own = "" if network == NODES else network
        self._create(
            key,
            name,
            call=lambda: self._cloud.networks.create_port(
                name=name,
                network_id=self._context.id(keys.network(own)),
                subnet_id=self._context.id(keys.subnet(own)),
                fixed_ip=address,
                security_group_ids=groups,
                send_from=send_from,
                tags=self._tags,
            ),
        )

    def _send_from(self, step: s.SetSendFrom, _: Progress) -> None:
        self._cloud.networks.update_port(step.port_id, send_from=step.send_from)

    # ---- the API's address

    def _floating_ip(self, step: s.CreateFloatingIP, _: Progress) -> None:
        self._context.intend(step.key)
        made = self._cloud.addresses.create_floating_ip(
            network_id=step.network_id, description=step.description, tags=self._tags
        )
        self._context.keep(step.key, made.id, api_address=made.address)

    def _entrance(self, step: s.CreateEntrance, _: Progress) -> None:
        self._context.intend(step.key, step.name)
        made = self._cloud.entrances.create_entrance(name=step.name, port=step.port, tags=self._tags)
        self._context.keep(step.key, made.id, name=step.name, api_address=made.address)

    def _lead(self, step: s.LeadEntrance, _: Progress) -> None:
        servers = [self._context.id(keys.server(name)) for name in step.nodes]
        self._cloud.entrances.lead_to(self._context.id(step.key), servers)

    def _attach(self, step: s.AttachFloatingIP, _: Progress) -> None:
        address, port = self._context.id(step.key), self._context.id(keys.port(step.node))
        retry_while_busy(lambda: self._cloud.addresses.associate_floating_ip(address, port), self._context.clock)

    # ---- keys and credentials

    def _keypair(self, step: s.CreateKeypair, _: Progress) -> None:
        self._context.intend(step.key, step.name)
        machines = self._cloud.machines
        try:
            machines.create_keypair(step.name, self._public_key)
        except Conflict:
            # one of an earlier try, perhaps with another key: nobody else has this name, the UID is in it
            machines.delete_keypair(step.name)
            machines.create_keypair(step.name, self._public_key)
        self._context.keep(step.key, step.name, name=step.name)

    def _spread_group(self, step: s.CreateSpreadGroup, _: Progress) -> None:
        self._create(
            step.key,
            step.name,
            call=lambda: self._cloud.machines.create_spread_group(step.name, strict=step.strict),
        )

    def _credential(self, step: s.CreateCredential, _: Progress) -> None:
        record, credentials = self._context.require_record(), self._cloud.credentials
        # the secret of an earlier run's, maybe the user's own
        self._context.forget(keys.secret(step.key))
        self._context.intend(step.key, step.name)
        made = credentials.create_credential(name=step.name, use=step.use, description=step.purpose)
        self._context.notes.extend(made.notes)
        record.keep_secret(SECRET_NAMES[step.key], made.secret)
        self._context.keep(step.key, made.id, name=step.name)
        # only a credential whose secret is on disk is worth keeping: the planner asks for this key
        record.intend(keys.secret(step.key))

    def _hand_over(self, step: s.HandOverCredential, _: Progress) -> None:
        record, own = self._context.require_record(), self._cloud.credentials.own_credential()
        record.keep_secret(SECRET_NAMES[step.key], own.secret)
        self._context.use(step.key, own.id)
        # the record has the credential as a secret alone: as an object it would be the cluster's, and go with it
        record.made(keys.secret(step.key), own.id, name=step.name)

    # ---- machines

    def _server(self, step: s.CreateServer, _: Progress) -> None:
        node, content = step.node, self._content(step)
        ports = [keys.port(node.name), *([keys.public_port(node.name)] if step.public else [])]
        self._context.await_node(node.name)
        self._create(
            step.key,
            node.name,
            call=lambda: self._cloud.machines.create_server(
                name=node.name,
                image_id=step.image_id,
                flavor_id=step.flavor_id,
                port_ids=[*map(self._context.id, ports)],
                user_data=content.user_data,
                zone=node.zone,
                key_name=self._context.id(keys.KEY_PAIR),
                metadata=content.metadata,
                tags=self._tags,
                root=step.root,
                group_id=self._context.id(keys.spread_group(step.spread)) if step.spread else "",
            ),
        )

    def _content(self, step: s.CreateServer) -> ServerContent:
        """The same one if the step is run again: the cloud may have begun to make the machine, and knows its start by a digest.
        What the cloud cannot keep is on disk before the machine is asked for."""
        name = step.node.name
        if name not in self._contents:
            content = self._contents[name] = self._render(step, self._context.made)
            if self._context.machine_notes is not None and (content.start or content.untold):
                self._context.machine_notes.keep(name, metadata=content.untold, start=content.start)
        return self._contents[name]

    def _start(self, step: s.StartServer, _: Progress) -> None:
        self._context.await_node(step.key.name)
        self._cloud.machines.start_server(step.server_id)

    def _resume(self, step: s.ResumeServer, _: Progress) -> None:
        self._context.await_node(step.key.name)
        self._cloud.machines.resume_server(step.server_id)

    def _restart(self, step: s.RestartServer, _: Progress) -> None:
        retry_while_busy(lambda: self._cloud.machines.reboot_server(step.server_id), self._context.clock)
        # afterwards: a node that is awaited is not restarted, and a second reboot does less harm than none
        self._context.await_node(step.key.name)

    def _adopt(self, step: s.Adopt, _: Progress) -> None:
        self._cloud.tags.add_tags(step.key.kind, step.object_id, tags=(*self._tags, *step.tags))

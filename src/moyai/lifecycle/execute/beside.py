"""Carries out the steps that make machines beside the cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from moyai.bootstrap.machine import ServerContent
from moyai.core.ids import machine_tag
from moyai.core.progress import Progress
from moyai.lifecycle.execute.context import Context, Handler, handles
from moyai.lifecycle.execute.removing import retry_while_busy
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.spec.beside import NODES


class Beside:
    """``render``: what the server of a machine is made with."""

    def __init__(self, context: Context, *, render: Callable[[s.CreateMachine], ServerContent]) -> None:
        self._context, self._cloud, self._render = context, context.cloud, render

    def handlers(self) -> Mapping[type[s.Step], Handler]:
        return dict(
            [
                handles(s.CreateMachinePort, self._port),
                handles(s.CreateMachine, self._machine),
                handles(s.StartMachine, self._start),
                handles(s.CreateMachineAddress, self._address),
                handles(s.AttachMachineAddress, self._attach),
            ]
        )

    def _port(self, step: s.CreateMachinePort, _: Progress) -> None:
        context, place = self._context, step.place
        own = "" if place.network == NODES else place.network
        context.intend(step.key, place.port)
        made = self._cloud.networks.create_port(
            name=place.port,
            network_id=context.id(keys.network(own)),
            subnet_id=context.id(keys.subnet(own)),
            fixed_ip=place.address,
            security_group_ids=[] if step.transit else [context.id(keys.security_group("machine"))],
            transit=step.transit,
            tags=(*context.tags, machine_tag(step.machine)),
        )
        context.keep(step.key, made.id, name=place.port)

    def _machine(self, step: s.CreateMachine, _: Progress) -> None:
        context, machine, content = self._context, step.machine, self._render(step)
        context.intend(step.key, machine.name)
        made = self._cloud.machines.create_server(
            name=machine.name,
            image_id=step.image_id,
            flavor_id=step.flavor_id,
            port_ids=[context.id(keys.port(place.port)) for place in machine.places],
            user_data=content.user_data,
            zone=machine.entry.zone,
            key_name=context.id(keys.KEY_PAIR),
            metadata=content.metadata,
            tags=context.tags,
        )
        context.keep(step.key, made.id, name=machine.name)

    def _start(self, step: s.StartMachine, _: Progress) -> None:
        machines = self._cloud.machines
        (machines.resume_server if step.resume else machines.start_server)(step.server_id)

    def _address(self, step: s.CreateMachineAddress, _: Progress) -> None:
        self._context.intend(step.key)
        made = self._cloud.addresses.create_floating_ip(
            network_id=step.network_id, description=step.description, tags=self._context.tags
        )
        self._context.keep(step.key, made.id, name=made.address)

    def _attach(self, step: s.AttachMachineAddress, _: Progress) -> None:
        address, port = self._context.id(step.key), self._context.id(keys.port(step.port))
        retry_while_busy(lambda: self._cloud.addresses.associate_floating_ip(address, port), self._context.clock)

"""The machines beside the cluster: a port for each of their places, the server, a floating IP for a bastion.

Always holds: a machine whose entry in the spec has changed is made again, and so is one that is broken; a machine that the spec
no longer has goes with its ports and its address; no machine of the cluster waits for one of these.
"""

from __future__ import annotations

from collections.abc import Iterator

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Power
from moyai.core.errors import UsageError
from moyai.core.ids import TEMPLATE_KEY
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.network import MachineNetwork
from moyai.plan.cluster.situation import Situation
from moyai.plan.machines_beside import PlannedMachine
from moyai.plan.observed import Observed, is_beside, owns
from moyai.spec.beside import NODES
from moyai.spec.model import Cluster

#: By routers, networks beside the cluster's own one lead out; metadata tell a machine beside the cluster from a node.
_NEEDED = (Capability.ROUTERS, Capability.METADATA)


def check_beside_machines(cluster: Cluster, observed: Observed) -> None:
    """Raises UsageError for a network or a machine that the cloud cannot have."""
    cloud, spec = cluster.spec.cloud, cluster.spec
    lacks = next((one for one in _NEEDED if one not in observed.capabilities), None)
    if lacks and (spec.networks or spec.machines):
        section = "networks" if spec.networks else "machines"
        raise UsageError(f"spec.{section}: should be left out: cloud {cloud} has no {lacks}")
    for number, machine in enumerate(cluster.spec.machines):
        if machine.role == "router" and not observed.sources_allowed:
            raise UsageError(
                f"spec.machines[{number}].role: 'router', should be another one: cloud {cloud} does not let ports "
                "send from other addresses than their own"
            )
        if machine.role == "bastion" and Capability.FLOATING_IPS not in observed.capabilities:
            raise UsageError(
                f"spec.machines[{number}].role: 'bastion', should be another one: cloud {cloud} has no "
                f"{Capability.FLOATING_IPS}"
            )


def plan_beside(now: Situation, network: MachineNetwork) -> Iterator[s.Step]:
    wanted = now.machines
    began: list[s.StepId] = []
    for machine in wanted:
        for place in machine.places:
            if place.port in now.existing.ports:
                continue
            own = "" if place.network == NODES else place.network
            needs = [s.created(keys.network(own)), s.created(keys.subnet(own))]
            if not machine.transit:
                needs.append(s.created(keys.security_group("machine")))
            yield s.CreateMachinePort(
                key=keys.port(place.port), after=tuple(needs), machine=machine.entry.name, place=place, transit=machine.transit
            )
        for step in _server(now, machine):
            if not isinstance(step, s.Delete):
                began.append(step.id)
            yield step
        if machine.entry.role == "bastion":
            yield from _address(now, machine, network=network)
    # a restore deletes nothing: the next `up` does
    yield from () if now.recorded.restores else _leaving(now)
    names = tuple(machine.name for machine in wanted)
    servers = now.existing.machines
    if began or any(name not in servers or servers[name].power is not Power.RUNNING for name in names):
        yield s.WaitMachines(key=s.BESIDE, after=tuple(began), nodes=names)


def _server(now: Situation, machine: PlannedMachine) -> Iterator[s.Step]:
    server, key = now.existing.machines.get(machine.name), keys.server(machine.name)
    made = server.metadata.get(TEMPLATE_KEY, "") if server else ""
    if server is not None and not server.power.broken and made == machine.template:
        if server.power in (Power.OFF, Power.SUSPENDED):
            yield s.StartMachine(key=key, server_id=server.id, resume=server.power is Power.SUSPENDED)
        return
    if server is not None:
        why = (server.fault or "it is broken") if server.power.broken else "its entry in the spec has changed"
        yield s.Delete(key=key, object_id=server.id, why=why)
    ports = (s.created(keys.port(place.port)) for place in machine.places)
    yield s.CreateMachine(
        key=key,
        after=(*ports, s.created(keys.KEY_PAIR), s.deleted(key)),
        machine=machine,
        image_id=now.choices.machine_images[machine.entry.name].id,
        flavor_id=now.choices.flavors[machine.entry.flavor].id,
    )


def _address(now: Situation, machine: PlannedMachine, *, network: MachineNetwork) -> Iterator[s.Step]:
    key, port = keys.machine_address(machine.name), machine.places[0].port
    found, owner = now.existing.addresses.get(machine.name), now.existing.ports.get(port)
    if found is None:
        description = keys.machine_address_description(now.recorded.uid, machine.name)
        yield s.CreateMachineAddress(
            key=key, machine=machine.entry.name, network_id=now.external_network.id, description=description
        )
    if found is None or owner is None or found.port_id != owner.id:
        own = "" if machine.places[0].network == NODES else machine.places[0].network
        after = (s.created(key), s.created(keys.port(port)), s.created(keys.interface(own)), *network.leads_out())
        yield s.AttachMachineAddress(key=key, after=after, machine=machine.entry.name, port=port)


def _leaving(now: Situation) -> Iterator[s.Step]:
    """Servers first, then their ports and addresses."""
    names = {machine.name for machine in now.machines}
    places = {place.port for machine in now.machines for place in machine.places}
    gone: list[s.StepId] = []
    for name, server in sorted(now.existing.machines.items()):
        if name not in names:
            gone.append(s.deleted(keys.server(name)))
            yield s.Delete(key=keys.server(name), object_id=server.id, why="the spec no longer has it")
    for port in now.observed.ports:
        if is_beside(port) and owns(now.recorded.uid, port) and port.name not in places:
            # of a machine that is made again with other networks
            again = (s.deleted(keys.server(name)) for name in names)
            yield s.Delete(key=keys.port(port.name), after=(*gone, *again), object_id=port.id)
    bastions = {machine.name for machine in now.machines if machine.entry.role == "bastion"}
    for address in now.observed.floating_ips:
        machine = keys.machine_of_address(address.description, now.recorded.uid)
        if owns(now.recorded.uid, address) and machine is not None and machine not in bastions:
            yield s.Delete(key=keys.machine_address(machine), after=tuple(gone), object_id=address.id)

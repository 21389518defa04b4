"""The machines: a port for each, which fixes its address, and the server on it."""

from __future__ import annotations

from collections.abc import Iterator

from moyai.cloud.model import Power
from moyai.core.errors import Terminal
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.endpoint import Endpoint
from moyai.plan.cluster.network import MachineNetwork
from moyai.plan.cluster.removal import leave_service, out_of_service
from moyai.plan.cluster.situation import Situation
from moyai.plan.cluster.spread import root_of, spreads
from moyai.plan.nodes import CONTROL_PLANE_POOL, PlannedNode, pool_of_node
from moyai.plan.pod_network import PodNetwork
from moyai.spec.beside import NODES


def plan_machines(now: Situation, endpoint: Endpoint, *, pods: PodNetwork, network: MachineNetwork) -> Iterator[s.Step]:
    first = now.control_planes[0]
    for node in now.nodes:
        if node.name not in now.existing.ports:
            # with a public card, a machine has its address on the private network from itself, and others as well
            sources = () if network.public_cards else pods.send_from(node)
            own = "" if node.network == NODES else node.network
            needs = [s.created(keys.network(own)), s.created(keys.subnet(own)), s.created(keys.security_group(node.role))]
            if node.role == "worker" and not node.guessed:
                # the control plane's machine takes longest: it is asked for before anything of the workers
                needs.append(s.created(keys.server(first.name)))
            yield s.CreatePort(key=keys.port(node.name), after=tuple(needs), node=node, send_from=sources)
    for node in now.nodes:
        server = now.existing.servers.get(node.name)
        if server is not None and now.lives(node.name):
            if _unstarted(now, node):
                yield s.SendStart(key=keys.start(node.name), node=node.name)
            if server.power is Power.OFF:
                yield s.StartServer(key=keys.server(node.name), server_id=server.id)
            elif server.power is Power.SUSPENDED:
                yield s.ResumeServer(key=keys.server(node.name), server_id=server.id)
            elif server.power is Power.HELD and now.only_plane(node):
                raise Terminal(
                    f"the control plane's machine {node.name} is in {server.status}, and its API does not answer",
                    hint="end that state in the cloud, then run `moyai up` again",
                )
            continue
        yield from _replace(now, node)
        yield s.CreateServer(
            key=keys.server(node.name),
            after=_needs(now, node, endpoint=endpoint),
            node=node,
            image_id=now.choices.image_of(node.role).id,
            flavor_id=now.choices.flavors[node.flavor].id,
            first=node.name == now.founder,
            restores=now.recorded.restores if node.name == now.founder else "",
            living=_living(now) if now.recorded.restores and node.name == now.founder else (),
            peers=_peers(now, node) if node.role == "control-plane" else (),
            public=network.public_cards,
            root=root_of(now.cluster.spec, node.pool),
            spread=node.pool if spreads(now, node.pool) else "",
        )
        if now.observed.starts_by_script:
            yield s.SendStart(key=keys.start(node.name), after=(s.created(keys.server(node.name)),), node=node.name)
    if now.renews_token:
        yield s.RenewToken(key=keys.TOKEN, after=(s.reached(s.API),), keep=bool(now.unjoined))


def _unstarted(now: Situation, node: PlannedNode) -> bool:
    """Whether a machine that exists waits for its start: an earlier run was ended before it had sent it."""
    return node.name in now.recorded.unstarted and node.name not in now.observed.kube_nodes


def _living(now: Situation) -> tuple[str, ...]:
    """Names of the workers whose machines run, wanted or not."""
    alive = filter(now.lives, now.existing.servers)
    return tuple(sorted(name for name in alive if pool_of_node(name, now.cluster.name) != CONTROL_PLANE_POOL))


def _peers(now: Situation, node: PlannedNode) -> tuple[str, ...]:
    leaving = filter(None, map(now.plane_address, now.leaving_planes))
    return (*(other.address for other in now.control_planes if other != node), *leaving)


def _replace(now: Situation, node: PlannedNode) -> Iterator[s.Step]:
    """What must go before a machine is made again under its name."""
    server = now.existing.servers.get(node.name)
    if now.only_plane(node) and now.recorded.ready:
        state = f"is in {server.status}" if server else "is gone"
        raise Terminal(
            f"the control plane's machine {node.name} {state}, and with it the cluster's state",
            hint="`moyai restore FILE` makes the cluster again from a backup, `moyai down` and `moyai up` without what it held",
        )
    if server is not None:
        why = server.fault or "it is broken"
        if node.name in now.obsolete:
            why = f"{now.founder}, which begins the cluster, is made again"
        if node.name in now.stale_nodes:
            yield from leave_service(now, node.name)
        yield s.Delete(key=keys.server(node.name), after=out_of_service(node.name), object_id=server.id, why=why)
    if node.name in now.stale_nodes:
        after = (s.deleted(keys.server(node.name)), s.reached(s.API))
        yield s.DeleteNode(key=keys.node_object(node.name), after=after, node=node.name)


def _needs(now: Situation, node: PlannedNode, *, endpoint: Endpoint) -> tuple[s.StepId, ...]:
    """What must exist before a machine is created, since its user data names it, and what must be gone."""
    own = [s.created(keys.spread_group(node.pool))]
    own += [s.created(keys.port(node.name)), s.created(keys.public_port(node.name)), s.created(keys.KEY_PAIR)]
    own += [s.deleted(keys.server(node.name)), s.deleted(keys.node_object(node.name))]
    own += [s.StepId(s.Verb.SET, keys.KUBE_PROXY), s.StepId(s.Verb.SET, keys.KUBEADM_CONFIG)]
    if node.role == "worker":
        return (*own, s.created(keys.TOKEN))
    if node.name == now.founder:
        own += [s.deleted(keys.server(name)) for name in sorted(now.obsolete)]
    elif not now.makes_cluster:
        # the others' etcd has a majority when the API answers
        own.append(s.reached(s.API))
    credentials = (keys.CONTROLLERS_CREDENTIAL, keys.VOLUMES_CREDENTIAL)
    named = (*credentials, keys.ROUTER, keys.SUBNET, keys.security_group("worker"))
    return (*own, *map(s.created, named), *map(s.handed_over, credentials), *endpoint.known_by())


def held_notes(now: Situation) -> Iterator[str]:
    """Machines that only their user can put to work again, and that nothing waits for."""
    for name in sorted(now.held):
        status = now.existing.servers[name].status
        yield f"machine {name} is in {status}, which `up` does not end: end it in the cloud, then run `moyai up` again"

"""What a user means by the two ends of a trace: pods, machines, Services, addresses. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address

from moyai.core.errors import UsageError
from moyai.diagnose.network.nft_rules import Packet
from moyai.diagnose.network.trace_model import PacketEnd, ServiceFacts
from moyai.kube.objects import Node, object_key, parse_policy_pod
from moyai.kube.objects.meta import deleting, part, rows, text
from moyai.kube.resources import Json
from moyai.spec.kubernetes import is_object_name

PROTOCOLS = ("tcp", "udp", "sctp", "icmp")
#: As kubectl prints kinds before names.
_KINDS = {
    "pod": "pod", "pods": "pod", "po": "pod",
    "node": "machine", "nodes": "machine", "no": "machine", "machine": "machine",
    "service": "service", "services": "service", "svc": "service",
}  # fmt: skip


@dataclass(frozen=True)
class Objects:
    """``pods``: all of the cluster, as JSON."""

    nodes: tuple[Node, ...]
    pods: tuple[Json, ...]
    services: tuple[ServiceFacts, ...]


def parse_port(given: str) -> tuple[str, int]:
    """(protocol, number) of ``80``, ``80/tcp``, ``icmp``. Raises UsageError."""
    number, _, protocol = given.lower().partition("/")
    if number == "icmp" and not protocol:
        return "icmp", 0
    protocol = protocol or "tcp"
    if protocol in PROTOCOLS and protocol != "icmp" and number.isdecimal() and 1 <= int(number) <= 65535:
        return protocol, int(number)
    raise UsageError(f"--port {given!r}: no port", hint="should be a number of 1 to 65535, with /tcp, /udp or /sctp, or icmp")


def find_source(given: str, objects: Objects, *, namespace: str) -> PacketEnd:
    """Raises UsageError for what is unknown, ambiguous, or nothing that can send."""
    place = _find(given, objects, namespace=namespace)
    if place.kind in ("service", "outside"):
        what = "a Service sends nothing" if place.kind == "service" else "no pod and no machine of the cluster has this address"
        raise UsageError(f"{given!r}: {what}", hint="a trace begins at a pod or at a machine")
    return place


def find_target(given: str, objects: Objects, *, namespace: str) -> PacketEnd:
    """Raises UsageError for what is unknown or ambiguous."""
    return _find(given, objects, namespace=namespace)


def first_packet(source: PacketEnd, target: PacketEnd, *, objects: Objects, port: tuple[str, int] | None) -> Packet:
    """The packet that is traced. Without ``port``: the first one of the Service, or of the pod's containers, else a ping."""
    protocol, number = port or _usual_port(target, objects)
    return Packet(source.address if source.kind == "pod" else "", target.address, protocol, number)


def _usual_port(target: PacketEnd, objects: Objects) -> tuple[str, int]:
    if target.kind == "service":
        return next((one.ports[0] for one in objects.services if one.key == target.name and one.ports), ("icmp", 0))
    nothing: Json = {}
    pod = next((one for one in objects.pods if target.kind == "pod" and object_key(one) == target.name), nothing)
    for container in rows(part(pod, "spec"), "containers"):
        for port in rows(container, "ports"):
            return (text(port, "protocol") or "TCP").lower(), int(port["containerPort"])
    return "icmp", 0


def _find(given: str, objects: Objects, *, namespace: str) -> PacketEnd:
    try:
        return _at(str(IPv4Address(given)), objects)
    except AddressValueError:
        pass
    space, _, name = given.rpartition("/")
    kind = _KINDS.get(space.partition("/")[0], "")
    space = space.partition("/")[2] if kind else space
    if not is_object_name(name) or (space and not is_object_name(space)):
        hint = "should be NAME or NAMESPACE/NAME of a pod or Service, a node's name, or an IPv4 address"
        raise UsageError(f"{given!r} is no place in the cluster", hint=hint)
    named = [one for one in _named(name, objects, namespace=space or namespace) if kind in ("", one[0])]
    if not kind and not space and (machine := [one for one in named if one[0] == "machine"]):
        named = machine
    if not named:
        where = f"namespace {space or namespace}"
        raise UsageError(
            f"{given!r}: there is no such pod or Service in {where}, and no such node",
            hint=_alike(name, objects) or "see `moyai kubectl get pods,services -A`",
        )
    if len(named) > 1:
        choices = ", ".join(f"{'svc' if of == 'service' else of}/{name}" for of, _ in named)
        raise UsageError(f"{given!r} may be several things", hint=f"write one of {choices}")
    return _addressed(named[0][1])


def _named(name: str, objects: Objects, *, namespace: str) -> Iterator[tuple[str, PacketEnd]]:
    """(kind of the object, where it is): a pod of its host's network is at the machine."""
    wanted = f"{namespace}/{name}"
    for node in objects.nodes:
        if node.name == name:
            yield "machine", _machine(node)
    for pod in objects.pods:
        if object_key(pod) == wanted:
            yield "pod", _pod(pod, objects.nodes)
    for one in objects.services:
        if one.key == wanted:
            yield "service", _service(one)


def _at(address: str, objects: Objects) -> PacketEnd:
    for node in objects.nodes:
        if address in node.internal_ips:
            return _machine(node)
    pods = sorted((pod for pod in objects.pods if address in parse_policy_pod(pod).addresses), key=deleting)
    if pods:
        return _pod(pods[0], objects.nodes)
    service = next((one for one in objects.services if address in one.addresses), None)
    return replace(_service(service), address=address) if service else PacketEnd("outside", address, address)


def _machine(node: Node) -> PacketEnd:
    return PacketEnd("machine", node.name, next(iter(node.internal_ips), ""), node.name)


def _pod(found: Json, nodes: Iterable[Node]) -> PacketEnd:
    pod = parse_policy_pod(found)
    node = next((one for one in nodes if one.name == pod.node), None)
    if node and part(found, "spec").get("hostNetwork"):
        return PacketEnd("machine", pod.key, next(iter(node.internal_ips), ""), pod.node)
    return PacketEnd("pod", pod.key, next((one for one in pod.addresses if "." in one), ""), pod.node)


def _service(service: ServiceFacts) -> PacketEnd:
    return PacketEnd("service", service.key, next(iter(service.addresses), ""))


def _addressed(place: PacketEnd) -> PacketEnd:
    if not place.address or place.address == "None":
        hint = (
            "a headless Service has none: trace a pod"
            if place.kind == "service"
            else "`moyai explain` says why a pod does not run"
        )
        raise UsageError(f"{place.kind} {place.name} has no address of IPv4", hint=hint)
    return place


def _alike(name: str, objects: Objects) -> str:
    found = [pod.key for pod in map(parse_policy_pod, objects.pods) if pod.name.startswith(name)]
    found += [one.key for one in objects.services if one.name == name]
    found += [one.name for one in objects.nodes if one.name.endswith(name)]
    return f"there is {', '.join(found[:3])}" if found else ""

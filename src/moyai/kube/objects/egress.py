"""EgressAddress: the address with which the pods of a namespace, or of a Service, leave the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from moyai.kube.objects.meta import Reference, part, reference, rows, text, text_map, texts
from moyai.kube.resources import Json

EGRESS_KIND = "EgressAddress"


@dataclass(frozen=True)
class EgressAddress:
    """``service`` empty: all pods of the namespace. ``problem``: why it cannot have an effect, empty for nothing. ``created``:
    as Kubernetes writes it. ``node``: the owner, as its status says."""

    namespace: str
    name: str
    address: str
    service: str
    about: Reference
    created: str = ""
    node: str = ""
    problem: str = ""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_egress_address(found: Json) -> EgressAddress:
    meta, spec = part(found, "metadata"), part(found, "spec")
    address = text(spec, "address")
    try:
        IPv4Address(address)
        problem = ""
    except ValueError:
        problem = f"spec.address: {address!r} is no address of IPv4"
    return EgressAddress(
        text(meta, "namespace"),
        text(meta, "name"),
        address,
        text(spec, "service"),
        reference(found, EGRESS_KIND),
        created=text(meta, "creationTimestamp"),
        node=text(part(found, "status"), "node"),
        problem=problem,
    )


@dataclass(frozen=True)
class EgressPod:
    """``address`` empty: it has none, or it has its node's."""

    namespace: str
    address: str


def parse_egress_pod(found: Json) -> EgressPod:
    spec, status = part(found, "spec"), part(found, "status")
    seen = not spec.get("hostNetwork") and text(status, "phase") not in ("Succeeded", "Failed")
    return EgressPod(text(part(found, "metadata"), "namespace"), text(status, "podIP") if seen else "")


@dataclass(frozen=True)
class ServicePods:
    """Out of an EndpointSlice. ``service``: ``namespace/name``. ``addresses``: of pods, ready or not."""

    service: str
    addresses: frozenset[str]


def parse_service_pods(found: Json) -> ServicePods:
    meta = part(found, "metadata")
    owner = text_map(meta, "labels").get("kubernetes.io/service-name", "")
    pods = (one for one in rows(found, "endpoints") if text(part(one, "targetRef"), "kind") == "Pod")
    addresses = frozenset(address for one in pods for address in texts(one, "addresses"))
    return ServicePods(f"{text(meta, 'namespace')}/{owner}", addresses)


@dataclass(frozen=True)
class LeaseHolder:
    """``holder`` empty: nobody."""

    lease: str
    holder: str


def parse_lease_holder(found: Json) -> LeaseHolder:
    return LeaseHolder(text(part(found, "metadata"), "name"), text(part(found, "spec"), "holderIdentity"))

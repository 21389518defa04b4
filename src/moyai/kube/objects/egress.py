"""EgressAddress: the address with which the pods of a namespace, or of a Service, leave the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from moyai.kube.objects.meta import Reference, part, reference, text
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
class LeaseHolder:
    """``holder`` empty: nobody."""

    lease: str
    holder: str


def parse_lease_holder(found: Json) -> LeaseHolder:
    return LeaseHolder(text(part(found, "metadata"), "name"), text(part(found, "spec"), "holderIdentity"))

"""EgressAddress: the address with which the pods of a namespace, or of a Service, leave the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from moyai.kube.objects.meta import Reference, deleting, part, reference, text, texts
from moyai.kube.resources import Json

EGRESS_KIND = "EgressAddress"
#: In ``spec.floatingIP``: whichever the cloud gives.
ANY_FLOATING_IP = "auto"


@dataclass(frozen=True)
class EgressAddress:
    """``service`` empty: all pods of the namespace. ``problem``: why it cannot have an effect, empty for nothing. ``created``:
    as Kubernetes writes it. ``node``: the owner, as its status says. ``floating_ip``: the one that is wanted, ``auto`` for any,
    empty for none. ``public``: the one that the status shows. ``finalizers``: of the object, with its ``version``."""

    namespace: str
    name: str
    address: str
    service: str
    about: Reference
    created: str = ""
    node: str = ""
    problem: str = ""
    floating_ip: str = ""
    public: str = ""
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    version: str = ""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_egress_address(found: Json) -> EgressAddress:
    meta, spec = part(found, "metadata"), part(found, "spec")
    address = text(spec, "address")
    floating = text(spec, "floatingIP")
    problem = "" if _is_address(address) else f"spec.address: {address!r} is no address of IPv4"
    if floating not in ("", ANY_FLOATING_IP) and not _is_address(floating):
        problem = problem or f"spec.floatingIP: {floating!r} is neither {ANY_FLOATING_IP} nor an address of IPv4"
    return EgressAddress(
        text(meta, "namespace"),
        text(meta, "name"),
        address,
        text(spec, "service"),
        reference(found, EGRESS_KIND),
        created=text(meta, "creationTimestamp"),
        node=text(part(found, "status"), "node"),
        problem=problem,
        floating_ip=floating,
        public=text(part(found, "status"), "floatingIP"),
        deleting=deleting(found),
        finalizers=texts(meta, "finalizers"),
        version=text(meta, "resourceVersion"),
    )


def _is_address(given: str) -> bool:
    try:
        IPv4Address(given)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class LeaseHolder:
    """``holder`` empty: nobody."""

    lease: str
    holder: str


def parse_lease_holder(found: Json) -> LeaseHolder:
    return LeaseHolder(text(part(found, "metadata"), "name"), text(part(found, "spec"), "holderIdentity"))

"""The spec's fields for how pods of different nodes reach each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from moyai.spec.base import Model, problem

Mode = Literal["routes", "host-gw", "vxlan", "bgp", "auto", "none"]
#: Where nodes had agents before there was a choice, and those enforced network policies.
_ALWAYS = ("host-gw", "vxlan", "bgp")


def enforces_by_default(before: Mapping[str, Any]) -> bool:
    """Whether a new cluster enforces network policies where its spec does not say so. ``before``: the fields of the network
    that have been read already. In mode `none` a CNI plugin of the user's may do it."""
    return before.get("mode") != "none"


def enforced(network: Mapping[str, Any]) -> bool:
    """Whether a cluster that exists enforces them. ``network``: the dumped section, perhaps of a cluster that was made before
    there was a choice."""
    return bool(network.get("policy", network.get("mode", "routes") in _ALWAYS))


class VxlanSpec(Model):
    """Encapsulation of pods' packets, in the way of flannel."""

    vni: Annotated[int, Field(ge=1, le=2**24 - 1)] = Field(default=1, description="Number of the network in each packet.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=8472, description="UDP port of the machines. 8472 is the kernel's, 4789 the standard's."
    )
    direct_routing: bool = Field(
        default=False,
        description="Whether machines of one subnet reach each other's pods without encapsulation. Their ports must be allowed "
        "to send from pods' addresses.",
    )
    resolve: Literal["known", "onDemand"] = Field(
        default="known",
        description="`known`: a node has the entries of all other nodes beforehand. `onDemand`: its kernel asks for the way "
        "to a pod with the first packet (L3MISS and L2MISS), which waits for the answer, and forgets what is not used.",
    )


class EtcdKey(Model):
    """Where flannel's configuration stands in an etcd. The names are those of flanneld's options `-etcd-endpoints`,
    `-etcd-prefix`, `-etcd-cafile`, `-etcd-certfile` and `-etcd-keyfile`."""

    endpoints: list[str] = Field(
        description="Addresses of the members, as http://10.0.0.5:2379; the first that answers is asked."
    )
    prefix: str = Field(default="/coreos.com/network", description="The configuration is the value of the key PREFIX/config.")
    cafile: str = Field(default="", description="File of the authority that the members' certificates are checked with.")
    certfile: str = Field(default="", description="File of the certificate that moyai shows; needs keyfile.")
    keyfile: str = Field(default="", description="File of that certificate's key.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.endpoints:
            raise problem("a list of addresses", at=("endpoints",))
        for number, one in enumerate(self.endpoints):
            if not one.startswith(("http://", "https://")) or not one.partition("://")[2].strip("/"):
                raise problem("an address as http://10.0.0.5:2379", at=("endpoints", number))
        if not self.prefix.startswith("/"):
            raise problem("a key that begins with /", at=("prefix",))
        if bool(self.certfile) != bool(self.keyfile):
            raise problem(
                f"given together with {'certfile' if self.certfile else 'keyfile'}",
                at=("keyfile" if self.certfile else "certfile",),
            )
        return self


class NetConfSource(Model):
    """Flannel's own configuration (`net-conf.json`) in place of `podCIDR`, `nodePodPrefix`, `mode` and `vxlan`. It is read when
    the spec is read."""

    file: str = Field(default="", description="A file, seen from the folder of the spec.")
    etcd: EtcdKey | None = Field(default=None, description="A key of an etcd of yours.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.file) == (self.etcd is not None):
            raise problem("a mapping with file or with etcd")
        return self

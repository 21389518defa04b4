"""The services of OpenStack by their types in the catalog: the name a user knows, the version that the adapter speaks, and the
capabilities that stand on a service, or on an extension of Neutron."""

from __future__ import annotations

from collections.abc import Mapping

from moyai.cloud.capabilities import Capability

NAMES: Mapping[str, str] = {
    "compute": "Nova",
    "network": "Neutron",
    "image": "Glance",
    "block-storage": "Cinder",
    "identity": "Keystone",
    "load-balancer": "Octavia",
    "placement": "Placement",
}
#: API versions that the adapter speaks. Where the catalog's address has none, keystoneauth asks the service for it.
VERSIONS: Mapping[str, str] = {
    "compute": "2.1",
    "network": "2",
    "image": "2",
    "block-storage": "3",
    "identity": "3",
    "load-balancer": "2",
}
#: The capabilities that stand on a service of their own, which not every cloud has.
CAPABILITIES: Mapping[str, Capability] = {
    "block-storage": Capability.DISKS,
    "load-balancer": Capability.LOAD_BALANCERS,
}
#: The capabilities that stand on an extension of Neutron, by its alias. ``router`` brings floating IPs too; ``quotas`` is all
#: that is asked for limits, since limits of machines alone are of no use to a plan.
EXTENSIONS: Mapping[Capability, str] = {
    Capability.ROUTERS: "router",
    Capability.FLOATING_IPS: "router",
    Capability.POD_ROUTING: "extraroute",
    Capability.TAGS: "standard-attr-tag",
    Capability.QUOTAS: "quotas",
}

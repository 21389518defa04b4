"""What a cloud does not have: the calls of an absent capability say which one is absent, each of them and in the same way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import pytest

from moyai.cloud.capabilities import (
    Addresses,
    Capability,
    CapabilityAbsent,
    Cloud,
    PodRouting,
    Quotas,
    Routers,
    Tags,
)
from moyai.cloud.disks import Disks
from moyai.cloud.load_balancers import (
    BalancingAlgorithm,
    CheckType,
    Listener,
    LoadBalancer,
    LoadBalancers,
    Monitor,
    Pool,
    TrafficProtocol,
)
from moyai.core.keys import Kind
from tests.contract.site import Site

NOBODY = "00000000-0000-4000-8000-00000000dead"

#: An argument for each type of a parameter that has no default.
_ARGUMENTS: dict[type, Any] = {
    str: NOBODY,
    Kind: Kind.NETWORK,
    int: 1,
    LoadBalancer: LoadBalancer("none"),
    Listener: Listener("none", TrafficProtocol.TCP, 80),
    Pool: Pool("none", TrafficProtocol.TCP, BalancingAlgorithm.ROUND_ROBIN),
    Monitor: Monitor(CheckType.TCP, delay=5, timeout=3, max_retries=1, max_retries_down=3),
}


def calls(protocol: type) -> dict[str, dict[str, Any]]:
    """Method → arguments that it can be called with, of every method of a capability."""
    found: dict[str, dict[str, Any]] = {}
    for name, method in inspect.getmembers(protocol, inspect.isfunction):
        if name.startswith("_"):
            continue
        hints = get_type_hints(method)
        wanted = [
            one for one in inspect.signature(method).parameters.values() if one.default is one.empty and one.name != "self"
        ]
        found[name] = {one.name: _ARGUMENTS.get(hints[one.name], {}) for one in wanted}
    assert found
    return found


def silent(part: object, protocol: type, *, capability: Capability) -> list[str]:
    """The methods of ``part`` that do not raise the absence of the capability."""
    left: list[str] = []
    for name, arguments in calls(protocol).items():
        try:
            getattr(part, name)(**arguments)
        except CapabilityAbsent as error:
            if error.capability is capability:
                continue
        except Exception as error:
            name = f"{name} raises {type(error).__name__}: {error}"
        left.append(name)
    return left


#: Of each capability that a cloud of any kind may lack: its calls, and where a cloud has them.
PARTS: Mapping[Capability, tuple[type, Callable[[Cloud], object]]] = {
    Capability.ROUTERS: (Routers, lambda cloud: cloud.routers),
    Capability.FLOATING_IPS: (Addresses, lambda cloud: cloud.addresses),
    Capability.POD_ROUTING: (PodRouting, lambda cloud: cloud.pod_routing),
    Capability.DISKS: (Disks, lambda cloud: cloud.disks),
    Capability.LOAD_BALANCERS: (LoadBalancers, lambda cloud: cloud.load_balancers),
    Capability.QUOTAS: (Quotas, lambda cloud: cloud.quotas),
    Capability.TAGS: (Tags, lambda cloud: cloud.tags),
}


def silent_calls(cloud: Cloud, capability: Capability) -> list[str]:
    """The calls of the capability that do not raise its absence."""
    protocol, part = PARTS[capability]
    return silent(part(cloud), protocol, capability=capability)


class Absences:
    @pytest.mark.parametrize("capability", list(PARTS))
    def test_every_call_of_an_absent_capability_names_it(self, site: Site, capability: Capability) -> None:
        cloud = site.lacking(capability)
        assert capability not in cloud.capabilities()
        assert silent_calls(cloud, capability) == []

    def test_a_list_by_tag_is_empty_or_right_on_a_cloud_that_cannot_tag_what_exists(self, site: Site) -> None:
        listed = site.lacking(Capability.TAGS).networks.networks(tag=site.tag)
        assert {one.id for one in listed} <= {site.network.id}

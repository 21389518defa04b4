"""What a cloud does not have: the calls of an absent capability say which one is absent, each of them and in the same way."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

from moyai.cloud.capabilities import Capability, CapabilityAbsent
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
from tests.contract.site import Site

NOBODY = "00000000-0000-4000-8000-00000000dead"

#: An argument for each type of a parameter that has no default.
_ARGUMENTS: dict[type, Any] = {
    str: NOBODY,
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


class Absences:
    def test_every_call_for_disks_names_them_where_they_are_absent(self, site: Site) -> None:
        cloud = site.lacking(Capability.DISKS)
        assert Capability.DISKS not in cloud.capabilities()
        assert silent(cloud.disks, Disks, capability=Capability.DISKS) == []

    def test_every_call_for_load_balancers_names_them_where_they_are_absent(self, site: Site) -> None:
        cloud = site.lacking(Capability.LOAD_BALANCERS)
        assert Capability.LOAD_BALANCERS not in cloud.capabilities()
        assert silent(cloud.load_balancers, LoadBalancers, capability=Capability.LOAD_BALANCERS) == []

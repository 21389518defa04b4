"""Steps with which a load balancer of the cloud leads to the API: it is made, and control planes are led in and out.

``address``: of a control plane in the machines' network, by which a load balancer knows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moyai.cloud.load_balancers import LoadBalancer
from moyai.plan.steps.base import Step, Verb


@dataclass(frozen=True, kw_only=True)
class CreateBalancer(Step):
    """``balancer``: the whole tree, without the ids of what is made in this run. ``port``: name of the port that has its
    address."""

    verb: ClassVar[Verb] = Verb.CREATE
    balancer: LoadBalancer
    port: str

    @property
    def text(self) -> str:
        return f"create load balancer {self.balancer.name} before the API"


@dataclass(frozen=True, kw_only=True)
class LeadBalancer(Step):
    """Lead to these control planes (name, address) and to no others, before the API answers."""

    verb: ClassVar[Verb] = Verb.SET
    planes: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        return f"let the load balancer before the API send to {', '.join(name for name, _ in self.planes)}"


@dataclass(frozen=True, kw_only=True)
class SetBalancerAccess(Step):
    """``cidrs``: who may connect to the load balancer before the API; empty for everybody."""

    verb: ClassVar[Verb] = Verb.SET
    cidrs: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"let the load balancer before the API take connections from {', '.join(self.cidrs) or 'everywhere'}"


@dataclass(frozen=True, kw_only=True)
class LeadIn(Step):
    """The load balancer sends to this control plane as well, once its API server works."""

    verb: ClassVar[Verb] = Verb.ADD
    node: str
    address: str

    @property
    def text(self) -> str:
        return f"let the load balancer before the API send to {self.node} as well"


@dataclass(frozen=True, kw_only=True)
class LeadOut(Step):
    """The load balancer sends nothing more to this control plane, once the API server of another one works. ``stay_addresses``:
    of those."""

    verb: ClassVar[Verb] = Verb.REMOVE
    node: str
    address: str
    stay_addresses: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"let the load balancer before the API send nothing more to {self.node}"

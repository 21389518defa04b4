"""The cloud's services, one module each: their configuration as text and how they are started. Pure: nothing is touched."""

from __future__ import annotations

from moyai.localcloud.services import compute, identity, image, infra, load_balancer, network, nifcloud, registry, volume
from moyai.localcloud.services.rendering import ServiceContext, policy_yaml
from moyai.localcloud.supervision import ServiceSpec

_MODULES = (infra, identity, image, compute, network, volume, load_balancer, registry, nifcloud)


def files(context: ServiceContext) -> dict[str, str]:
    """Every configuration file, by its path below the cloud's ``conf`` folder."""
    policies = {f"{name}-policy.yaml": policy_yaml(rules) for name, rules in context.config.profile.policies.items()}
    # a service that has policies of its own writes them together with the profile's
    return {**policies, **{name: text for module in _MODULES for name, text in module.files(context).items()}}


def services(context: ServiceContext) -> list[ServiceSpec]:
    """Every service, in the order in which they are best started."""
    return [service for module in _MODULES for service in module.services(context)]

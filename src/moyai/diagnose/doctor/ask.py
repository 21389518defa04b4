"""Asks a cloud for all its facts side by side. A call that fails makes its own fact unknown, and no other one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from moyai.cloud.capabilities import Capability, Cloud
from moyai.cloud.model import Network
from moyai.cloud.service_balancers import HasServiceBalancers
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, one_line
from moyai.diagnose.doctor.facts import CloudSurvey, External, Unknown
from moyai.lifecycle.observe import permitted

_WORKERS = 12
T = TypeVar("T")


def ask(cloud: Cloud, clock: Clock) -> CloudSurvey:
    """Raises UsageError where the cloud's entry or a file that it names cannot be read."""
    survey, machines, disks = cloud.survey, cloud.machines, cloud.disks
    calls: dict[str, Callable[[], Any]] = {
        "login": survey.login,
        "own_login": lambda: cloud.credentials.own_login(),
        "services": lambda: tuple(survey.services()),
        "capabilities": lambda: permitted(cloud),
        "features": survey.features,
        "quotas": lambda: _where(cloud, Capability.QUOTAS, call=lambda: cloud.quotas.quotas()),
        "flavors": lambda: tuple(machines.flavors()),
        "images": lambda: tuple(cloud.images.images()),
        "zones": lambda: tuple(sorted(machines.zones())),
        "volume_zones": lambda: tuple(sorted(_where(cloud, Capability.DISKS, call=disks.zones))),
        "volume_types": lambda: _where(cloud, Capability.DISKS, call=disks.types),
        "providers": lambda: _where(cloud, Capability.LOAD_BALANCERS, call=cloud.load_balancers.providers),
        "clock_ahead": survey.clock_ahead,
        "certificates": lambda: tuple(survey.certificates()),
        "subnets": lambda: tuple(cloud.networks.subnets()),
    }
    # the first call logs in: a login that is refused is reported once, and not by each call
    cloud.account.project_id()
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="doctor") as pool:
        networks = pool.submit(lambda: tuple(cloud.networks.networks()))
        external = pool.submit(lambda: _external(cloud, networks.result()))
        asked: dict[str, Future[Any]] = {name: pool.submit(call) for name, call in calls.items()}
        asked |= {"networks": networks, "external": external}
        answers = {name: _answer(one) for name, one in asked.items()}
        kind = cloud.kind
        return CloudSurvey(
            name=cloud.name,
            now=clock.now(),
            needs_tags=kind.needs_tags,
            starts_by_script=kind.starts_by_script,
            serves=isinstance(cloud, HasServiceBalancers),
            **answers,
        )


def _answer(asked: Future[T]) -> T | Unknown:
    try:
        return asked.result()
    except MoyaiError as error:
        return Unknown(one_line(error))


def _where(cloud: Cloud, capability: Capability, *, call: Callable[[], list[T]]) -> tuple[T, ...]:
    return tuple(call()) if capability in cloud.capabilities() else ()


def _external(cloud: Cloud, networks: Iterable[Network]) -> tuple[External, ...]:
    external = sorted((one for one in networks if one.external), key=lambda network: network.name)
    return tuple(External(network, cloud.survey.free_addresses(network.id)) for network in external)

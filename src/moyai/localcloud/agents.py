"""Whether the cloud is whole: every agent, compute and volume service has reported.

An API counts an agent as alive for some time after its last report. After a death that time says nothing: until it is over, an
agent that was killed, or that has lost its way to the API, still counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.localcloud.api import Api
from moyai.localcloud.layout import LocalCloudConfig

#: Neutron's kind of agent → the service that it runs in, as the supervisor names it before the host.
_NEUTRON = {
    "Linux bridge agent": "neutron-linuxbridge",
    "L3 agent": "neutron-l3",
    "DHCP agent": "neutron-dhcp",
    "Metadata agent": "neutron-metadata",
}
#: What every report passes on its way, and what an agent's of Neutron passes besides.
_WAY, _NEUTRONS_WAY = ("mariadb", "rabbitmq"), ("neutron-server",)
#: Seconds. The APIs give times of whole seconds.
_RESOLUTION = 1.0


@dataclass(frozen=True)
class ServiceAgent:
    """One part that reports to its API: ``alive`` as the API sees it. ``reported``: its last report, in seconds since 1970."""

    kind: str
    host: str
    alive: bool
    reported: float = 0.0


def expected(config: LocalCloudConfig) -> set[tuple[str, str]]:
    hosts = [hypervisor.host for hypervisor in config.hypervisors]
    found = {("Linux bridge agent", host) for host in hosts} | {("nova-compute", host) for host in hosts}
    found |= {(kind, hosts[0]) for kind in ("L3 agent", "DHCP agent", "Metadata agent")}
    found |= {("cinder-volume", f"{hosts[0]}@{zone}") for zone in config.zones}
    return found | {("cinder-scheduler", hosts[0]), ("nova-scheduler", hosts[0]), ("nova-conductor", hosts[0])}


def listing(api: Api) -> list[ServiceAgent]:
    """All agents. The services are asked at the same time. The first requests also warm the services up."""

    def network() -> list[ServiceAgent]:
        found: list[dict[str, Any]] = api.get("neutron", "/v2.0/agents")["agents"]
        return [
            ServiceAgent(agent["agent_type"], agent["host"], agent["alive"], _moment(agent["heartbeat_timestamp"]))
            for agent in found
        ]

    def compute() -> list[ServiceAgent]:
        found: list[dict[str, Any]] = api.get("nova", "/v2.1/os-services")["services"]
        return _services(found)

    def volume() -> list[ServiceAgent]:
        found: list[dict[str, Any]] = api.get("cinder", f"/v3/{api.project_id()}/os-services")["services"]
        return _services(found)

    calls: tuple[Callable[[], list[ServiceAgent]], ...] = (network, compute, volume)
    with ThreadPoolExecutor(len(calls)) as pool:
        answers = [pool.submit(call) for call in calls]
        return [agent for answer in answers for agent in answer.result()]


def _services(found: list[dict[str, Any]]) -> list[ServiceAgent]:
    """Of Nova and Cinder. A service that has not reported since it is known has no time of a report yet."""
    return [
        ServiceAgent(
            service["binary"],
            service["host"],
            service["state"] == "up",
            _moment(service["updated_at"] or service.get("created_at")),
        )
        for service in found
    ]


def _moment(text: str | None) -> float:
    """UTC, whether the API says so or not."""
    return datetime.fromisoformat(text.rstrip("Z")).replace(tzinfo=UTC).timestamp() if text else 0.0


def silent(config: LocalCloudConfig, agents: list[ServiceAgent], *, starts: Mapping[str, float]) -> list[str]:
    """The expected agents that have not reported since they, and all that a report passes, were started.

    ``starts``: service → when its process was started, in seconds since 1970.
    """

    def fresh(agent: ServiceAgent) -> bool:
        own = _NEUTRON.get(agent.kind, agent.kind)
        passed = (own, f"{own}-{agent.host}", *_WAY, *(_NEUTRONS_WAY if agent.kind in _NEUTRON else ()))
        return agent.reported + _RESOLUTION > max(starts.get(name, 0.0) for name in passed)

    told = {(agent.kind, agent.host) for agent in agents if agent.alive and fresh(agent)}
    return [f"{kind} on {host}" for kind, host in sorted(expected(config) - told)]


def wait(
    config: LocalCloudConfig,
    api: Api,
    *,
    starts: Callable[[], Mapping[str, float]],
    clock: Clock,
    step: Progress,
    timeout: float,
) -> None:
    """Return once all expected agents have reported (``silent``). Raises MoyaiError, which names the missing agents."""

    def whole() -> bool | NotYet:
        missing = silent(config, listing(api), starts=starts())
        return not missing or NotYet(", ".join(missing))

    def late(last: NotYet) -> MoyaiError:
        return MoyaiError(f"not complete after {timeout:.0f} s: {last.missing}", hint="see `moyai cloud logs`")

    until(
        whole,
        clock=clock,
        timeout=timeout,
        pause=0.5,
        retry=MoyaiError,
        on_wait=lambda missing: step.progress(f"waits for {missing}"[:160]),
        late=late,
    )

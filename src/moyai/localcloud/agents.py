"""Whether the cloud is whole: every agent, compute and volume service has reported, and the hypervisors can take machines."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.localcloud.api import Api
from moyai.localcloud.layout import LocalCloudConfig


@dataclass(frozen=True)
class ServiceAgent:
    """One part that reports to its API: ``alive`` as the API sees it."""

    kind: str
    host: str
    alive: bool


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
        return [ServiceAgent(agent["agent_type"], agent["host"], agent["alive"]) for agent in found]

    def compute() -> list[ServiceAgent]:
        found: list[dict[str, Any]] = api.get("nova", "/v2.1/os-services")["services"]
        return [ServiceAgent(service["binary"], service["host"], service["state"] == "up") for service in found]

    def volume() -> list[ServiceAgent]:
        found: list[dict[str, Any]] = api.get("cinder", f"/v3/{api.project_id()}/os-services")["services"]
        return [ServiceAgent(service["binary"], service["host"], service["state"] == "up") for service in found]

    calls: tuple[Callable[[], list[ServiceAgent]], ...] = (network, compute, volume)
    with ThreadPoolExecutor(len(calls)) as pool:
        answers = [pool.submit(call) for call in calls]
        return [agent for answer in answers for agent in answer.result()]


def wait(config: LocalCloudConfig, api: Api, *, clock: Clock, step: Progress, timeout: float) -> None:
    """Return once all expected agents are alive. Raises MoyaiError, which names the missing agents."""

    def whole() -> bool | NotYet:
        missing = expected(config) - {(agent.kind, agent.host) for agent in listing(api) if agent.alive}
        return not missing or NotYet(", ".join(f"{kind} on {host}" for kind, host in sorted(missing)))

    def late(last: NotYet) -> MoyaiError:
        return MoyaiError(f"not whole after {timeout:.0f} s: {last.missing}", hint="see `moyai cloud logs`")

    until(
        whole,
        clock=clock,
        timeout=timeout,
        pause=0.5,
        retry=MoyaiError,
        on_wait=lambda missing: step.progress(f"waits for {missing}"[:160]),
        late=late,
    )

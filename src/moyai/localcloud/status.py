"""How a cloud is, as data: its services with their processes, its agents as their APIs see them, its addresses.

Reading only; works on a cloud in any condition, also while another command changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from moyai.core.errors import MoyaiError
from moyai.core.paths import Paths
from moyai.linux import cgroups, proc
from moyai.localcloud import agents, ends, secrets
from moyai.localcloud.api import Api
from moyai.localcloud.control import Control
from moyai.localcloud.layout import PORTS, CloudPaths, LocalCloudConfig
from moyai.localcloud.supervision import ServiceStatus

#: none: there is no such cloud; stopped: its state is there (the host was restarted, or ``down --keep``);
#: incomplete: `up` was interrupted; degraded: something is not ready or not alive; running: all is well.
Condition = Literal["none", "stopped", "incomplete", "degraded", "running"]


#: What services leave to run on its own: privileged helpers, dnsmasq, HAProxy, machines' launchers.
HELPERS = "(helpers)"


@dataclass(frozen=True)
class ServiceView:
    """One service. ``pid``: on the host, 0 when not running; ``memory``: bytes, with its children; ``since``: Unix time."""

    name: str
    phase: str
    pid: int
    since: float
    restarts: int
    memory: int
    last_exit: str


@dataclass(frozen=True)
class CloudStatus:
    name: str
    condition: Condition
    problems: tuple[str, ...] = ()
    init: int = 0
    services: tuple[ServiceView, ...] = ()
    agents: tuple[agents.ServiceAgent, ...] = ()
    machines: tuple[str, ...] = ()
    addresses: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def memory(self) -> int:
        return sum(service.memory for service in self.services)


def status(config: LocalCloudConfig, paths: Paths) -> CloudStatus:
    """The cloud of that name; its recorded configuration counts, not the one handed in."""
    folders = CloudPaths(paths.cloud(config.name))
    if not folders.record.exists():
        return CloudStatus(config.name, "none", tuple(ends.leftovers(config, folders)))
    config = LocalCloudConfig.from_json(folders.record.read_text())
    complete = (folders.root / "complete").exists()
    record = proc.ProcessRecord.load(folders.init_record)
    if record is None or not record.alive():
        return CloudStatus(config.name, "stopped" if complete else "incomplete", tuple(ends.leftovers(config, folders)))
    problems: list[str] = []
    services: tuple[ServiceView, ...] = ()
    try:
        services = _services(record.pid, Control(folders.control_socket).status())
        problems += [f"{service.name} is not ready ({service.phase})" for service in services if service.phase != "ready"]
    except MoyaiError as error:
        problems.append(str(error))
    found: tuple[agents.ServiceAgent, ...] = ()
    values = secrets.load(folders.secrets)
    if values is not None and complete:
        try:
            found = tuple(agents.listing(Api(config, values.admin)))
            alive = {(agent.kind, agent.host) for agent in found if agent.alive}
            problems += [f"{kind} on {host} does not report" for kind, host in sorted(agents.expected(config) - alive)]
        except MoyaiError as error:
            problems.append(str(error))
    root = cgroups.find(config.cgroup)
    return CloudStatus(
        config.name,
        "incomplete" if not complete else "degraded" if problems else "running",
        tuple(problems),
        record.pid,
        services,
        found,
        tuple(root.names()) if root.exists() else (),
        {
            "APIs": config.address,
            **{name: config.url(name) for name in PORTS if name not in {"rabbitmq", "nova-metadata", "nifcloud"}},
            **({"nifcloud": f"https://{config.address}/api/"} if folders.nifcloud.exists() else {}),
            "management range": config.management_cidr,
            "floating IPs": config.external_cidr,
            "host's link": config.link,
        },
    )


def _services(init: int, services: list[ServiceStatus]) -> tuple[ServiceView, ...]:
    members = proc.members(init)
    members.pop(1, None)
    parents = {pid: _parent(pid) for pid in members.values()}
    owners = {members[service.pid]: service.name for service in services if service.pid in members}
    used: dict[str, int] = {}
    for pid in parents:
        above = pid
        while above in parents and above not in owners:
            above = parents[above]
        owner = owners.get(above, HELPERS)
        used[owner] = used.get(owner, 0) + proc.memory(pid)
    found = tuple(
        ServiceView(
            service.name,
            service.phase,
            members.get(service.pid, 0),
            service.since,
            service.restarts,
            used.get(service.name, 0),
            service.last_exit,
        )
        for service in services
    )
    return (*found, ServiceView(HELPERS, "ready", 0, 0.0, 0, used.get(HELPERS, 0), ""))


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def as_json(view: CloudStatus) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(view), "memory": view.memory}

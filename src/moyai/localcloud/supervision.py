"""The data that the supervisor exchanges with moyai's commands: a service, the plan of a cloud, a service's status.

The plan and the status cross a process boundary as JSON; they are parsed here and nowhere else. Standard library only, and
little of it: the supervisor loads this on the way of every start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

#: ``held`` waits for its release, ``waiting`` for other services, ``failed`` for its next start.
Phase = Literal["held", "waiting", "starting", "ready", "failed"]


@dataclass(frozen=True)
class ServiceSpec:
    """One supervised program.

    ``after``: services that must be ready before it starts. ``port``/``socket``: ready as soon as something listens there
    (the management address); with neither, ready once it runs. ``netns``: network namespace inside the cloud. ``env`` is
    the whole environment; it must hold no secret. ``stop``: signal that asks it to end.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    after: tuple[str, ...] = ()
    port: int = 0
    socket: str = ""
    netns: str = ""
    stop: str = "SIGTERM"


@dataclass(frozen=True)
class SupervisorPlan:
    """All services of one cloud. ``address``: where their ports are. ``held``: those that start only when released."""

    address: str
    services: tuple[ServiceSpec, ...]
    held: tuple[str, ...] = ()

    @classmethod
    def load(cls, file: Path) -> SupervisorPlan:
        data: dict[str, Any] = json.loads(file.read_text())
        services: list[ServiceSpec] = []
        for one in data["services"]:
            argv, after = tuple[str, ...](one.pop("argv")), tuple[str, ...](one.pop("after"))
            services.append(ServiceSpec(argv=argv, after=after, **one))
        return cls(data["address"], tuple(services), tuple(data["held"]))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


@dataclass(frozen=True)
class ServiceStatus:
    """One service: ``pid`` as seen inside the cloud (0 when not running), ``since`` in seconds since 1970."""

    name: str
    phase: Phase = "waiting"
    pid: int = 0
    since: float = 0.0
    restarts: int = 0
    last_exit: str = ""

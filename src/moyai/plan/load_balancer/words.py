"""Changes of a load balancer in words: ``describe`` for logs, ``explain`` for a user's events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from moyai.cloud.load_balancers import Listener, Monitor, Pool
from moyai.plan.load_balancer.difference import (
    BalancerChange,
    CreateListener,
    CreateMonitor,
    CreatePool,
    DeleteListener,
    DeleteMonitor,
    DeletePool,
    SetMembers,
    UpdateListener,
    UpdateMonitor,
    UpdatePool,
)


def describe(change: BalancerChange) -> str:
    """A change in words, for logs and for tests of whole plans."""
    parts: list[str] = []
    for item in fields(change):
        value = getattr(change, item.name)
        if isinstance(value, Listener | Pool | Monitor):
            value = value.name
        elif item.name == "members":
            value = " ".join(f"{one.address}:{one.port}" for one in change.members) if isinstance(change, SetMembers) else ""
        elif isinstance(value, Mapping):
            value = " ".join(f"{key}={new}" for key, new in value.items())  # pyright: ignore[reportUnknownVariableType]
        parts.append(str(value))
    return f"{type(change).__name__} {' '.join(parts)}".strip()


def explain(change: BalancerChange) -> str:
    """A change as a user would say it, for an event."""
    match change:
        case CreateListener():
            return f"{change.listener.protocol} port {change.listener.port} opened"
        case DeleteListener():
            return "a port closed"
        case SetMembers():
            return f"traffic goes to {len(change.members)} nodes"
        case UpdateListener() | UpdatePool() | UpdateMonitor():
            return "changed " + ", ".join(key.removesuffix("_ms").replace("_", " ") for key in change.changes)
        case CreateMonitor():
            return f"health check by {change.monitor.type}"
        case DeleteMonitor():
            return "health check taken away"
        case CreatePool():
            return f"backends recreated ({change.pool.protocol})"
        case DeletePool():
            return "old backends taken away"

"""What Nova's words about a server mean: to plans (``Power``), and to fencing (``Evidence``).

Pure. Always holds: a server counts as off only when Nova means it to be off, its hypervisor has seen it end, and nothing
that may turn it on is being done to it. Whatever else Nova says is no evidence that a machine is off.

Sources: https://docs.openstack.org/nova/2024.2/reference/vm-states.html (vm_state, power_state and task_state),
https://docs.openstack.org/api-guide/compute/server_concepts.html (status).
"""

from __future__ import annotations

from moyai.cloud.model import NO_SERVER, Activity, Evidence, Power

_POWER = {
    "BUILD": Power.STARTING,
    "REBUILD": Power.STARTING,
    "ACTIVE": Power.RUNNING,
    "SHUTOFF": Power.OFF,
    "STOPPED": Power.OFF,
    "PAUSED": Power.SUSPENDED,
    "SUSPENDED": Power.SUSPENDED,
    "SHELVED": Power.SUSPENDED,
    "SHELVED_OFFLOADED": Power.SUSPENDED,
    "ERROR": Power.FAILED,
    "UNKNOWN": Power.FAILED,
    "DELETED": Power.GONE,
    "SOFT_DELETED": Power.GONE,
}

#: power_state. 0 is "pending", which says nothing.
_HYPERVISOR = {"1": "running", "3": "paused", "4": "shutdown", "6": "crashed", "7": "suspended"}
_DARK = frozenset({"shutdown", "crashed"})
#: What Nova does to a machine that is off without turning it on.
_QUIET_TASKS = frozenset(
    {
        "deleting",
        "soft-deleting",
        "image_snapshot",
        "image_snapshot_pending",
        "image_pending_upload",
        "image_uploading",
        "shelving",
        "shelving_image_pending_upload",
        "shelving_image_uploading",
        "shelving_offloading",
    }
)
_AT_REST = frozenset({"stopped", "error", "shelved", "soft-delete"})
#: Paused and suspended machines go on where they were, with their file systems open: for their disks they run.
_ALIVE = frozenset({"active", "paused", "suspended", "rescued", "resized"})


def power(status: str) -> Power:
    return _POWER.get(status, Power.UNKNOWN)


def evidence(*, status: str, state: str, hypervisor: str, task: str) -> Evidence:
    """``state``: vm_state, what Nova means the server to be; ``hypervisor``: the number of power_state. Empty: not said."""
    if state == "deleted" or status == "DELETED":
        return NO_SERVER
    seen = _HYPERVISOR.get(hypervisor, "")
    said = (status, state or "no state", f"power {seen or 'not known'}", task)
    words = "that its server is " + ", ".join(one for one in said if one)
    return Evidence(
        _activity(state, seen, task=task), words, may_power_off=state == "active" and not task and seen not in _DARK
    )


def _activity(state: str, seen: str, *, task: str) -> Activity:
    calm = not task or task in _QUIET_TASKS
    if state == "shelved_offloaded" and calm:
        return Activity.OFF
    if state in _AT_REST and seen in _DARK and calm:
        return Activity.OFF
    if task or state not in _ALIVE:
        return Activity.BETWEEN
    if seen in _DARK and state == "active":
        return Activity.BETWEEN  # Nova has seen it end and is about to mark it stopped
    return Activity.RUNNING

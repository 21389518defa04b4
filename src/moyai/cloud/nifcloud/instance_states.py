"""What NIFCLOUD's words about a server mean: to plans (``Power``), and to fencing (``Evidence``).

Pure. Always holds: a server counts as off only when the API says ``stopped``. That a stop was asked for, ``pending``,
``warning`` or a lost reply proves nothing; the hypervisors restart a failed server on another host by themselves.

Source: the API's documentation of instanceState (code 0 pending, 16 running, 48 terminated, 80 stopped).
"""

from __future__ import annotations

from moyai.cloud.model import NO_SERVER, Activity, Evidence, Power

_POWER = {
    "pending": Power.STARTING,
    "waiting": Power.STARTING,
    "creating": Power.STARTING,
    "running": Power.RUNNING,
    "stopped": Power.OFF,
    "warning": Power.HELD,
    "import_error": Power.FAILED,
    "terminated": Power.GONE,
}


def power(state: str) -> Power:
    return _POWER.get(state, Power.UNKNOWN)


def evidence(state: str) -> Evidence:
    if state == "terminated":
        return NO_SERVER
    activity = {"stopped": Activity.OFF, "running": Activity.RUNNING}.get(state, Activity.BETWEEN)
    return Evidence(activity, f"that its server is {state or 'in no state'}", may_power_off=state == "running")

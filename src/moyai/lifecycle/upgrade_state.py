"""Where an upgrade stands, by the record and the machines; and the request to pause it.

Always holds: a request to pause needs no lock, since it is made while another process works.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from moyai.cloud.model import Server
from moyai.core.errors import UsageError
from moyai.core.files import write_private
from moyai.lifecycle.record import Record
from moyai.plan.observed import KubeFacts, Observed
from moyai.plan.versions import Stage, Upgrade, left

#: Whoever makes this file in the record's folder stops a run after the machine that it replaces.
_PAUSE_FILE = "pause"


@dataclass(frozen=True)
class UpgradeStatus:
    """``stage``: as on record. ``left``: machines that do not have their version yet, in the order of their turn. ``emulated``:
    the minor version as which control planes behave, empty for their own. ``text``: one line for people."""

    begin: str
    target: str
    goal: str
    stage: str
    paused: bool
    left: tuple[str, ...]
    emulated: str
    text: str


def request_pause(record: Record) -> None:
    """Stop the upgrade that is under way after the machine that is being replaced. UsageError where there is none."""
    if record.upgrade is None or record.upgrade.stage is Stage.SOAKING:
        raise UsageError(f"--pause: no machine of cluster {record.name} is being upgraded")
    write_private(record.folder / _PAUSE_FILE, "")


def is_paused(record: Record) -> bool:
    return (record.folder / _PAUSE_FILE).exists()


def go_on(record: Record) -> None:
    """Take a request to pause back."""
    with suppress(FileNotFoundError):
        (record.folder / _PAUSE_FILE).unlink()


def upgrade_status(record: Record, servers: Iterable[Server], *, kube: KubeFacts | None = None) -> UpgradeStatus | None:
    """None where there is no upgrade that is not finalized. ``servers``: of the cluster. ``kube``: says the version of machines
    that do not say it."""
    upgrade = record.upgrade
    if upgrade is None:
        return None
    observed = Observed(servers=tuple(servers), kube=kube)
    names = tuple(name for name, _ in left(upgrade, observed, recorded=record.recorded()))
    paused = is_paused(record)
    emulated = "" if upgrade.stage is Stage.FINAL else upgrade.emulated
    return UpgradeStatus(
        upgrade.begin,
        upgrade.target,
        upgrade.goal,
        stage=str(upgrade.stage),
        paused=paused,
        left=names,
        emulated=emulated,
        text=_text(upgrade, names, paused=paused),
    )


def _text(upgrade: Upgrade, names: tuple[str, ...], *, paused: bool) -> str:
    way = f"{upgrade.begin} to {upgrade.target}"
    if upgrade.stage is Stage.SOAKING:
        emulates = f", and control planes behave as {upgrade.emulated}" if upgrade.emulated else ""
        return (
            f"upgraded from {way} at {upgrade.done}{emulates}: `moyai upgrade --finalize` ends it, `moyai upgrade --rollback` "
            "takes it back"
        )
    if upgrade.stage is Stage.FINAL:
        return f"the upgrade from {way} is being finalized: `moyai upgrade` goes on"
    further = f", then to {upgrade.goal}" if upgrade.goal != upgrade.end else ""
    shown = ", ".join((*names[:3], *(["…"] if len(names) > 3 else [])))
    many = "1 machine is" if len(names) == 1 else f"{len(names)} machines are"
    waits = f"{many} left ({shown})" if names else "all machines have it"
    state = f"{upgrade.stage}{', paused' if paused else ''}"
    back = "" if upgrade.stage is Stage.BACK else ", `moyai upgrade --rollback` takes it back"
    return f"the upgrade from {way}{further} is {state}: {waits}; `moyai upgrade` goes on{back}"

"""Versions of Kubernetes while a cluster goes from one to another: which machines get which, and what comes next.

Pure. Always holds: no kubelet is newer than an API server that runs, on the way there and on the way back: control planes go
first upwards, and last backwards. From one minor version a cluster goes to the next one, never past it.
Source: https://kubernetes.io/releases/version-skew-policy/.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from moyai.core.errors import UsageError
from moyai.core.ids import TEMPLATE_KEY, node_image
from moyai.core.kubernetes_version import is_version, minor_version, version_numbers
from moyai.plan.machine_template import Versions, made_with
from moyai.plan.nodes import CONTROL_PLANE_POOL, pool_of_node
from moyai.plan.observed import Observed, Recorded, server_owner

#: A year.
MOST_SOAK_HOURS = 8760


class Stage(StrEnum):
    """Where an upgrade stands; the values are those of the record."""

    FORWARD = "under way"
    SOAKING = "soaking"
    BACK = "rolling back"
    FINAL = "finalizing"


@dataclass(frozen=True)
class Upgrade:
    """One minor or patch version further. ``begin``: what the cluster had. ``target``: what it gets. ``goal``: where the series
    of such steps ends.

    ``soak_hours``: after how many hours beside the old emulated version the next command finalizes; negative: only when it is
    asked for. ``done``: when all machines had the new version (ISO 8601), empty before.
    """

    begin: str
    target: str
    goal: str
    stage: Stage = Stage.FORWARD
    soak_hours: float = -1.0
    done: str = ""

    @property
    def emulated(self) -> str:
        """The minor version as which the new control planes behave, empty where it is their own."""
        return minor_version(self.begin) if minor_version(self.begin) != minor_version(self.target) else ""

    @property
    def end(self) -> str:
        """The version that all machines have when the work of this stage is done."""
        return self.begin if self.stage is Stage.BACK else self.target

    @property
    def moves(self) -> bool:
        """Whether machines have different versions meanwhile."""
        return self.stage in (Stage.FORWARD, Stage.BACK)


@dataclass(frozen=True)
class Wish:
    """What a user asks of an upgrade. ``to``: a version, empty where none is named. ``soak_hours``: None where it stays."""

    to: str = ""
    back: bool = False
    final: bool = False
    soak_hours: float | None = None


def decide(has: str, upgrade: Upgrade | None, *, wish: Wish, offered: Collection[str], now: datetime) -> Upgrade:
    """What is done now; the same upgrade where there is nothing to do. ``has``: the cluster's version. ``upgrade``: the one on
    record. UsageError for a wish that cannot be met."""
    if wish.to and not is_version(wish.to):
        raise UsageError(f"--to {wish.to[:64]}: should be a version such as {has}")
    if wish.soak_hours is not None and not 0 <= wish.soak_hours <= MOST_SOAK_HOURS:
        raise UsageError(f"--soak {wish.soak_hours:g}: should be 0 to {MOST_SOAK_HOURS} hours")
    if wish.back or wish.final:
        return _ended(upgrade, back=wish.back)
    if upgrade is None:
        if not wish.to:
            listed = _listed(one for one in offered if version_numbers(one) > version_numbers(has))
            raise UsageError(f"--to: left out, should be a version later than {has}: {listed}")
        links = plan_links(has, wish.to, offered=offered)
        return _with_soak(Upgrade(has, links[0], wish.to), wish)
    upgrade = _with_soak(upgrade, wish)
    if wish.to and wish.to != upgrade.goal:
        then = "`moyai upgrade` goes on with it, `moyai upgrade --rollback` takes it back"
        if upgrade.stage is Stage.SOAKING:
            then = "`moyai upgrade --finalize` finalizes it, then the next one can begin"
        what = f"upgrade from {upgrade.begin} to {upgrade.target} is {upgrade.stage}"
        raise UsageError(f"--to {wish.to}: the {what}", hint=then)
    soaked = upgrade.stage is Stage.SOAKING and upgrade.soak_hours >= 0
    if soaked and now - datetime.fromisoformat(upgrade.done) >= timedelta(hours=upgrade.soak_hours):
        return replace(upgrade, stage=Stage.FINAL)
    return upgrade


def after(upgrade: Upgrade, *, offered: Collection[str], now: datetime) -> Upgrade | None:
    """What follows when the work of a stage is done; None where nothing does."""
    if upgrade.stage is Stage.FORWARD and upgrade.target != upgrade.goal:
        links = plan_links(upgrade.target, upgrade.goal, offered=offered)
        return replace(upgrade, begin=upgrade.target, target=links[0])
    if upgrade.stage is Stage.FORWARD:
        done = replace(upgrade, stage=Stage.SOAKING, done=now.isoformat(timespec="seconds"))
        return replace(done, stage=Stage.FINAL) if upgrade.soak_hours == 0 else done
    return None


def _ended(upgrade: Upgrade | None, *, back: bool) -> Upgrade:
    if upgrade is None:
        what = "take back" if back else "finalize"
        raise UsageError(f"there is no upgrade to {what}", hint="one that is finalized stays" if back else None)
    if not back:
        if upgrade.moves:
            raise UsageError(
                f"--finalize: the upgrade to {upgrade.target} is {upgrade.stage}", hint="`moyai upgrade` goes on with it"
            )
        return replace(upgrade, stage=Stage.FINAL)
    if upgrade.stage is Stage.FINAL:
        raise UsageError(
            f"--rollback: the upgrade to {upgrade.target} is being finalized: what is stored may have a form that "
            f"{upgrade.begin} does not know",
            hint="`moyai upgrade` goes on with it; `moyai restore FILE` makes the cluster again from a backup",
        )
    return replace(upgrade, stage=Stage.BACK, goal=upgrade.begin, done="")


def _with_soak(upgrade: Upgrade, wish: Wish) -> Upgrade:
    return upgrade if wish.soak_hours is None else replace(upgrade, soak_hours=wish.soak_hours)


def plan_links(current: str, goal: str, *, offered: Collection[str]) -> tuple[str, ...]:
    """The versions that a cluster goes through, the last one is ``goal``: of each minor version between, the latest that there
    is an image of. ``offered``: versions that there are images of. UsageError where there is no such way."""
    if version_numbers(goal) == version_numbers(current):
        raise UsageError(f"--to {goal}: the cluster has this version already")
    if version_numbers(goal) < version_numbers(current):
        raise UsageError(
            f"--to {goal}: should be later than {current}, which the cluster has: what is stored may have a form that an older "
            "version does not know",
            hint="`moyai upgrade --rollback` takes back an upgrade that is not finalized",
        )
    first, last = version_numbers(current)[1], version_numbers(goal)[1]
    links: list[str] = []
    for number in range(first + 1, last):
        between = f"{version_numbers(current)[0]}.{number}"
        found = sorted((one for one in offered if minor_version(one) == between), key=version_numbers)
        if not found:
            raise UsageError(
                f"--to {goal}: a cluster goes from one minor version to the next, and there is no node image of {between}",
                hint=f"there are images of {_listed(offered)}",
            )
        links.append(found[-1])
    if goal not in offered:
        raise UsageError(
            f"--to {goal}: there is no node image {node_image(goal)}", hint=f"there are images of {_listed(offered)}"
        )
    return (*links, goal)


def versions_now(upgrade: Upgrade, observed: Observed, *, recorded: Recorded) -> Versions:
    """What machines that are made now get, so that the next ones to be replaced are those that the order allows."""
    planes, workers = _made(observed, recorded)
    if upgrade.stage is Stage.FORWARD:
        ready = all(one == upgrade.target for one in planes.values())
        return Versions(upgrade.target, upgrade.target if ready else upgrade.begin, upgrade.emulated)
    if upgrade.stage is Stage.BACK:
        if any(one != upgrade.begin for one in workers.values()):
            return Versions(upgrade.target, upgrade.begin, upgrade.emulated, back=True)
        return Versions(upgrade.begin, upgrade.begin, back=True)
    return Versions(upgrade.target, upgrade.target, upgrade.emulated if upgrade.stage is Stage.SOAKING else "")


def left(upgrade: Upgrade, observed: Observed, *, recorded: Recorded) -> tuple[tuple[str, str], ...]:
    """(machine, its version) of those that do not have the version yet that this stage leads to, in the order of their turn."""
    planes, workers = _made(observed, recorded)
    turns = (workers, planes) if upgrade.stage is Stage.BACK else (planes, workers)
    if not upgrade.moves:
        return ()
    return tuple((name, one) for machines in turns for name, one in sorted(machines.items()) if one != upgrade.end)


def _made(observed: Observed, recorded: Recorded) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """Machine → version, of the control planes and of the workers that exist."""
    planes: dict[str, str] = {}
    workers: dict[str, str] = {}
    for server in observed.servers:
        if server_owner(server) != recorded.uid or server.name not in recorded.allocations:
            continue
        node = observed.kube.node(server.name) if observed.kube else None
        version = made_with(server.metadata.get(TEMPLATE_KEY, "")) or (node.version if node else "")
        plane = pool_of_node(server.name, recorded.name) == CONTROL_PLANE_POOL
        (planes if plane else workers)[server.name] = version
    return planes, workers


def _listed(versions: Iterable[str]) -> str:
    return ", ".join(sorted(versions, key=version_numbers)) or "no version"

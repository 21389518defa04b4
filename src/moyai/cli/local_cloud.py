"""``moyai cloud``: the local cloud, a real OpenStack on this machine."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import click

from moyai.cli import prepare
from moyai.cli.display import OutputFormat, reporter, seconds
from moyai.cli.nifcloud import nifcloud
from moyai.cli.tables import print_table
from moyai.cli.terminal import OUTPUT, say
from moyai.core.errors import MoyaiError, NotFound, UsageError
from moyai.core.graph import run_graph
from moyai.core.paths import default_paths
from moyai.linux.process import stream
from moyai.localcloud import nifcloud_access
from moyai.localcloud import start_stop as local
from moyai.localcloud.clouds_yaml import user_file
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig
from moyai.localcloud.profile import load
from moyai.localcloud.status import CloudStatus, ServiceView, as_json, status
from moyai.toolchain import Toolchain

_DEFAULT = LocalCloudConfig()
_NAME = click.option("--name", default=_DEFAULT.name, show_default=True, help="The cloud's name.")


@click.group("cloud")
def cloud() -> None:
    """The local cloud: a real OpenStack on this machine."""


cloud.add_command(nifcloud)


@cloud.command("up")
@_NAME
@click.option(
    "--management-cidr", default=None, help=f"Range of the APIs and hypervisors  [default: {_DEFAULT.management_cidr}]"
)
@click.option("--external-cidr", default=None, help=f"Range of the floating IPs  [default: {_DEFAULT.external_cidr}]")
@click.option("--zones", default=None, help=f"Availability zones, one hypervisor each  [default: {','.join(_DEFAULT.zones)}]")
@click.option(
    "--outbound/--no-outbound", default=None, help="Let machines reach, by NAT, what this host reaches  [default: no]"
)
@click.option(
    "--like",
    multiple=True,
    metavar="PROFILE|FILE",
    help="Make it like a company's cloud: a profile, or a file NAME.toml; several are laid on top of each other.",
)
@click.option("--nifcloud", is_flag=True, help="Let it speak NIFCLOUD's API too; from then on it always does.")
@click.option("--snapshot/--no-snapshot", "use_snapshot", default=True, help="Use and leave a snapshot of a new cloud.")
@OUTPUT
def up(
    name: str,
    management_cidr: str | None,
    *,
    external_cidr: str | None,
    zones: str | None,
    outbound: bool | None,
    like: tuple[str, ...],
    nifcloud: bool,
    use_snapshot: bool,
    output: OutputFormat,
) -> None:
    """Start the cloud, or finish starting it; one that runs is left as it is."""
    paths = default_paths()
    # what is not said stays as the cloud was made with
    base = local.recorded(CloudPaths(paths.cloud(LocalCloudConfig(name).name))) or LocalCloudConfig(name)
    config = LocalCloudConfig(
        name,
        base.management_cidr if management_cidr is None else management_cidr,
        base.external_cidr if external_cidr is None else external_cidr,
        base.zones if zones is None else tuple(zones.split(",")),
        base.outbound if outbound is None else outbound,
        load(like) if like else base.profile,
    )
    with reporter(output, title=f"cloud {name}") as progress:
        tasks = prepare.cloud_tasks(
            config,
            paths,
            reporter=progress,
            toolchain=Toolchain(paths, progress),
            use_snapshot=use_snapshot,
            nifcloud=nifcloud,
        )
        run_graph(tasks, progress, workers=len(tasks))
    say(f"cloud {name} is up: `moyai openstack --os-cloud {name} …`, APIs on {config.address}, floating IPs {config.external}")
    if nifcloud:
        say(f"NIFCLOUD's API: https://{config.address}/api/, access key in {nifcloud_access.user_file(user_file(), config)}")


@cloud.command("down")
@_NAME
@click.option("--keep", is_flag=True, help="End it, but keep its state: `up` brings the same cloud back.")
@OUTPUT
def down(name: str, keep: bool, *, output: OutputFormat) -> None:
    """End the cloud, delete all that it holds, and prove that nothing is left on this host."""
    with reporter(output, title=f"cloud {name}") as progress:
        left = local.down(LocalCloudConfig(name), default_paths(), reporter=progress, keep=keep)
    if left:
        raise MoyaiError(f"left behind: {'; '.join(left)}")
    say(f"cloud {name} is gone: no process, namespace, link, route, mount, loop device or control group of it is left")


@cloud.command("status")
@_NAME
@OUTPUT
def show(name: str, output: OutputFormat) -> int:
    """Show services, agents and addresses. Exit code 1 unless all is well."""
    local.require_root()
    view = status(LocalCloudConfig(name), default_paths())
    if output == "json":
        say(json.dumps(as_json(view), indent=1))
    else:
        _print(view)
    return 0 if view.condition == "running" else 1


def _print(view: CloudStatus) -> None:
    say(f"cloud {view.name}: {view.condition}")
    for problem in view.problems:
        say(f"  ! {problem}")
    if not view.services:
        return
    head = ("SERVICE", "PHASE", "PID", "UP FOR", "RESTARTS", "MB", "LAST END")
    print_table(head, map(_row, view.services), right={"PID", "UP FOR", "RESTARTS", "MB"})
    alive = sum(agent.alive for agent in view.agents)
    say(f"{alive} of {len(view.agents)} agents alive, {len(view.machines)} machines, {view.memory >> 20} MB in all")
    for what, value in view.addresses.items():
        say(f"  {what:<18} {value}")


def _row(one: ServiceView) -> tuple[str, ...]:
    age = seconds(time.time() - one.since) if one.pid else ""
    numbers = (str(one.restarts or ""), str(one.memory >> 20 or ""))
    return (one.name, one.phase, str(one.pid or ""), age, *numbers, one.last_exit)


@cloud.command("logs")
@_NAME
@click.argument("service", required=False)
@click.option(
    "--lines", "-n", type=click.IntRange(1, 100000), default=50, show_default=True, help="How many of the last lines."
)
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines as they come.")
def logs(name: str, service: str | None, *, lines: int, follow: bool) -> None:
    """Print the end of SERVICE's log; without SERVICE, that of the supervisor, which names the services that died."""
    folder = CloudPaths(default_paths().cloud(LocalCloudConfig(name).name)).log
    if not folder.exists():
        raise NotFound(f"there is no cloud {name!r}")
    names = sorted(file.stem for file in folder.glob("*.log"))
    chosen = service or "supervisor"
    if chosen not in names:
        raise UsageError(f"no log of {chosen!r}", hint=f"one of {', '.join(names)}")
    _tail(folder / f"{chosen}.log", lines, follow=follow)


def _tail(file: Path, lines: int, *, follow: bool) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        stream(["tail", f"--lines={lines}", *(["--follow=name", "--retry"] if follow else []), file], say)


@cloud.command("restart")
@_NAME
@click.argument("services", nargs=-1, required=True)
def restart(name: str, services: tuple[str, ...]) -> None:
    """Restart SERVICES of the cloud."""
    local.require_root()
    local.restart(LocalCloudConfig(name), default_paths(), names=services)

"""``moyai cloud``: the local cloud, a real OpenStack on this machine."""

from __future__ import annotations

import json

import click

from moyai.cli.display import reporter
from moyai.core.errors import MoyaiError
from moyai.core.paths import default_paths
from moyai.localcloud import cloud as local
from moyai.localcloud.config import CloudConfig

_NAME = click.option("--name", default="moyai", show_default=True, help="The cloud's name.")
_OUTPUT = click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form of the output."
)


@click.group()
def cloud() -> None:
    """The local cloud: a real OpenStack on this machine."""


@cloud.command()
@_NAME
@click.option("--management-cidr", default="10.255.0.0/24", show_default=True, help="Range of the APIs and hypervisors.")
@click.option("--external-cidr", default="198.51.100.0/24", show_default=True, help="Range of the floating IPs.")
@click.option("--zones", default="az1,az2", show_default=True, help="Availability zones, with one hypervisor each.")
@click.option(
    "--outbound/--no-outbound", default=False, show_default=True, help="Let machines reach what this host reaches (NAT)."
)
@click.option("--snapshot/--no-snapshot", "use_snapshot", default=True, help="Use and leave a snapshot of a new cloud.")
@_OUTPUT
def up(
    name: str, management_cidr: str, external_cidr: str, zones: str, outbound: bool, use_snapshot: bool, output: str
) -> None:
    """Start the cloud; one that runs is left as it is."""
    config = CloudConfig(name, management_cidr, external_cidr, tuple(zones.split(",")), outbound)
    with reporter("json" if output == "json" else "text", title=f"cloud {name}") as progress:
        local.up(config, default_paths(), progress, use_snapshot=use_snapshot)


@cloud.command()
@_NAME
@click.option("--keep", is_flag=True, help="End it, but keep its state: `up` brings the same cloud back.")
@_OUTPUT
def down(name: str, keep: bool, output: str) -> None:
    """End the cloud and delete all that it holds."""
    with reporter("json" if output == "json" else "text", title=f"cloud {name}") as progress:
        left = local.down(CloudConfig(name), default_paths(), progress, keep=keep)
    if left:
        raise MoyaiError(f"left behind: {'; '.join(left)}")


@cloud.command()
@_NAME
@click.argument("services", nargs=-1, required=True)
def restart(name: str, services: tuple[str, ...]) -> None:
    """Restart services of the cloud."""
    local.restart(CloudConfig(name), default_paths(), services)


_ = json

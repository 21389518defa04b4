"""``moyai inventory``: a cluster's machines for Ansible."""

from __future__ import annotations

import json

import click

from moyai.cli.terminal import CLUSTER, say
from moyai.core.errors import UsageError


@click.command()
@CLUSTER
@click.option("--list", "whole", is_flag=True, help="Print all groups and hosts.")
@click.option("--host", metavar="NODE", default="", help="Print the variables of one host.")
def inventory(cluster: str | None, whole: bool, *, host: str) -> None:
    """Print a cluster's machines in JSON, as Ansible's dynamic inventory: groups by role, pool and zone.

    Ansible calls an inventory script with --list or --host NODE.
    """
    from moyai.cli.cluster import recorded
    from moyai.lifecycle import inventory as machines

    if whole == bool(host):
        raise UsageError("one of --list and --host NODE should be given")
    record = recorded(cluster, newest=True)
    say(json.dumps(machines.host_variables(record, host) if host else machines.inventory(record), indent=1))

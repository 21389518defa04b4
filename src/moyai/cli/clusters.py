"""``moyai clusters``: which clusters a cloud holds, whoever made them."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from moyai.cli.tables import print_table
from moyai.cli.terminal import OUTPUT, say


@click.command()
@click.option(
    "--cloud", metavar="CLOUD", default="", help="An entry of clouds.yaml.  [default: $OS_CLOUD, or that of your clusters]"
)
@OUTPUT
def clusters(cloud: str, output: str) -> None:
    """List the clusters that a cloud holds, by the tags of their networks, routers and machines.

    RECORD says whether this machine has a cluster's record: all commands but `down` need it. `moyai join` takes it over.
    """
    from moyai.cli.cluster import chosen_cloud, connect
    from moyai.cli.openstack import cloud_meant
    from moyai.core.paths import default_paths
    from moyai.lifecycle.cluster_list import list_clusters

    paths = default_paths()
    name = cloud or chosen_cloud() or cloud_meant(paths)
    found = list_clusters(connect(name), paths)
    if output == "json":
        say(json.dumps({"cloud": name, "clusters": [asdict(one) for one in found]}, indent=1))
    elif not found:
        say(f"cloud {name} holds no cluster that you can see")
    else:
        rows = [
            (
                one.name,
                one.uid,
                str(one.control_planes),
                str(one.workers),
                f"{one.running} of {one.control_planes + one.workers}" if one.in_cloud else "nothing in the cloud",
                "here" if one.recorded else "elsewhere",
            )
            for one in found
        ]
        print_table(
            ("NAME", "UID", "CONTROL-PLANES", "WORKERS", "RUNNING", "RECORD"), rows, right=("CONTROL-PLANES", "WORKERS")
        )
        for one in found:
            if not one.recorded:
                say(f"`moyai join {one.name} --kubeconfig FILE` takes the record of {one.name} ({one.uid}) over")

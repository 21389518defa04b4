"""`moyai ccm`: the cloud controller manager, which runs in the cluster. Hidden: nobody types it."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command(hidden=True)
@click.option("--cloud-config", type=click.Path(path_type=Path, dir_okay=False), required=True, help="cloud.conf")
@click.option("--cloud-provider", default="openstack", show_default=True, help="The kind of cloud.")
@click.option("--cluster-name", default="kubernetes", show_default=True, help="In the names of load balancers.")
@click.option("--cluster-cidr", default="", help="Pod CIDRs of the whole cluster, with commas between.")
@click.option("--controllers", default="node,node-lifecycle,fencing,route,service", show_default=True)
@click.option("--later-controllers", envvar="MOYAI_CONTROLLERS", default="", help="More of them; an unknown one is left out.")
@click.option("--bind", default="127.0.0.1:10258", show_default=True, help="Where probes and metrics are served.")
@click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), help="Default: as a pod of the cluster.")
@click.option("--leader-elect", type=bool, default=True, show_default=True)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True)
def ccm(
    *,
    cloud_config: Path,
    cloud_provider: str,
    cluster_name: str,
    cluster_cidr: str,
    controllers: str,
    later_controllers: str,
    bind: str,
    kubeconfig: Path | None,
    leader_elect: bool,
    log_level: str,
) -> None:
    """Run the cloud controller manager."""
    from moyai.ccm.app import CcmOptions, main
    from moyai.ccm.settings import CONTROLLERS
    from moyai.cloud.factory import ADAPTERS
    from moyai.runtime.controller_names import split_names, wanted_controllers

    options = CcmOptions(
        cloud_config=cloud_config,
        cluster_name=cluster_name,
        pod_ranges=split_names(cluster_cidr),
        controllers=wanted_controllers(controllers, later_controllers, known=CONTROLLERS),
        bind=bind,
        kubeconfig=kubeconfig,
        leader_elect=leader_elect,
        log_level=log_level,
    )
    sys.exit(main(options, ADAPTERS.named(cloud_provider)))

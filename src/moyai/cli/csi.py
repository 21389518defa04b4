"""`moyai csi`: the CSI driver, which runs in the cluster. Hidden: nobody types it. Its flags are those of Cinder CSI."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command(hidden=True)
@click.option("--endpoint", default="unix:///csi/csi.sock", show_default=True, help="The socket that is served.")
@click.option("--cloud-config", type=click.Path(path_type=Path, dir_okay=False), help="cloud.conf; for the controller service.")
@click.option("--cloud-provider", default="openstack", show_default=True, help="The kind of cloud.")
@click.option("--cluster", default="kubernetes", show_default=True, help="In the metadata of volumes.")
@click.option("--provide-controller-service", "controller", type=bool, default=True, show_default=True)
@click.option("--provide-node-service", "node", type=bool, default=True, show_default=True)
@click.option("--http-endpoint", default="", help="Where probes and metrics are served, as ADDRESS:PORT.")
@click.option("--kubelet-registration-path", default="", help="The endpoint's path as the kubelet sees it.")
@click.option(
    "--registration-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/lib/kubelet/plugins_registry"),
    show_default=True,
    help="Where the kubelet looks for plug-ins.",
)
@click.option(
    "--node-volume-attach-limit",
    type=click.IntRange(0, 256),
    default=0,
    help="Volumes a machine may have; 0: see cloud.conf.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True)
def csi(
    *,
    endpoint: str,
    cloud_config: Path | None,
    cloud_provider: str,
    cluster: str,
    controller: bool,
    node: bool,
    http_endpoint: str,
    kubelet_registration_path: str,
    registration_dir: Path,
    node_volume_attach_limit: int,
    log_level: str,
) -> None:
    """Run the CSI driver."""
    from moyai.cloud.factory import ADAPTERS
    from moyai.csi.app import CsiOptions, main

    options = CsiOptions(
        endpoint=endpoint,
        cluster=cluster,
        cloud_config=cloud_config,
        controller=controller,
        node=node,
        http_endpoint=http_endpoint,
        kubelet_path=kubelet_registration_path,
        registration_dir=registration_dir if kubelet_registration_path else None,
        volume_limit=node_volume_attach_limit,
        log_level=log_level,
    )
    sys.exit(main(options, ADAPTERS.named(cloud_provider)))

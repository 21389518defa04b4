"""The CSI driver's own objects in Kubernetes, which the first control plane's machine applies after the name service.

Controller (with the upstream sidecars), node plug-in, snapshot controller, their rights, the CSIDriver object, the default
classes and the definitions of snapshots. All may be applied again at any time. Names are those of the driver that such clouds
already have (``VolumeNames``). The rights are those that the sidecars use and no more; the driver itself has none, and no node
but the control plane gets the cloud's credential. The text holds the credential's secret (in the Secret): treat it as one.
"""

from __future__ import annotations

from typing import Any

from moyai.core import yamltext
from moyai.csi.manifests.classes import csi_driver, definitions, snapshot_class, storage_class
from moyai.csi.manifests.controller_plugin import controller, snapshot_controller
from moyai.csi.manifests.node_plugin import node
from moyai.csi.manifests.objects import (
    NAMESPACE,
    SIDECARS,
    SNAPSHOT_CONTROLLER,
    CsiManifestOptions,
    meta,
)
from moyai.csi.manifests.rights import accounts, rights

__all__ = [
    "NAMESPACE",
    "SIDECARS",
    "SNAPSHOT_CONTROLLER",
    "CsiManifestOptions",
    "definitions",
    "render",
    "storage_class",
]


def render(options: CsiManifestOptions) -> str:
    """All objects as one YAML stream, the definitions of snapshots first: the provisioner looks for them when it starts."""
    objects = (
        _secret(options),
        *accounts(options),
        *rights(options),
        csi_driver(options.names),
        storage_class(options.names, options.reclaim_policy),
        controller(options),
        node(options),
        # last: its kind is known only a moment after its definition was taken
        *([snapshot_controller(options), snapshot_class(options.names, options.reclaim_policy)] if options.snapshots else ()),
    )
    if not options.snapshots:
        return yamltext.dump(*objects)
    return "---\n".join([*definitions(), yamltext.dump(*objects)])


def _secret(options: CsiManifestOptions) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": meta(options.names, options.names.secret),
        "type": "Opaque",
        "stringData": {"cloud.conf": options.cloud_conf, **options.login_files, **options.environment},
    }

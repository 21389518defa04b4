"""Local clouds are reached past the proxies of the environment: they are on this host, and no proxy leads to them.

For this process and for the programs that it becomes (kubectl, the OpenStack client), which all heed ``NO_PROXY``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

from moyai.core.paths import Paths
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig

_VARIABLES = ("no_proxy", "NO_PROXY")


def go_past_proxies(cloud: str, paths: Paths, *, environ: MutableMapping[str, str] = os.environ) -> None:
    """Except the addresses of a local cloud from the environment's proxies; nothing changes for another cloud."""
    try:
        config = LocalCloudConfig.from_json(CloudPaths(paths.cloud(cloud)).record.read_text())
    except (OSError, ValueError, KeyError, TypeError):
        # no local cloud, or its record is damaged: the commands of `moyai cloud` report that
        return
    ranges = [str(config.management), *(str(wire.network) for wire in config.wires)]
    kept = next((environ[name] for name in _VARIABLES if environ.get(name)), "").split(",")
    for name in _VARIABLES:
        environ[name] = ",".join(dict.fromkeys([*filter(None, kept), *ranges]))


def chosen_cloud(environ: Mapping[str, str] = os.environ) -> str:
    """The cloud that the environment chooses for every OpenStack client; empty: none.

    Without $OS_CLOUD, variables like $OS_AUTH_URL are a cloud of their own, which openstacksdk calls ``envvars``.
    """
    return environ.get("OS_CLOUD") or ("envvars" if environ.get("OS_AUTH_URL") else "")

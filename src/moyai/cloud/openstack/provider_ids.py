"""How a Node of Kubernetes names its server: as OpenStack's own cloud provider writes it, so that nodes of either are known.

``openstack:///UUID``, or with a region: ``openstack://REGION/UUID``.
"""

from __future__ import annotations

import re

_PROVIDER_ID = re.compile(r"openstack://(?P<region>[^/]*)/(?P<id>[0-9a-fA-F-]{32,36})")


def provider_id(server_id: str) -> str:
    return f"openstack:///{server_id}"


def server_id(provider_id: str) -> str | None:
    match = _PROVIDER_ID.fullmatch(provider_id)
    return match["id"] if match else None

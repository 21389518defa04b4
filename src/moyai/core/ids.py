"""Names and tags of what moyai makes. One owner for everything: the cluster's UID is in every tag.

The UID is drawn once per cluster and never changes; an object that carries another UID is never touched.
"""

from __future__ import annotations

import re
import secrets
from typing import Literal

#: Tag key on cloud objects (as ``moyai.cluster=UID`` where tags are plain strings, as key and value in metadata).
CLUSTER_TAG = "moyai.cluster"
ROLE_KEY = "moyai.role"
#: The values of ``ROLE_KEY``.
Role = Literal["control-plane", "worker"]
POOL_KEY = "moyai.pool"
#: Server metadata: the key that opens the encrypted part of a control plane's user data, until the machine has used it.
UNSEALING_KEY = "moyai.key"
#: Server metadata: the pod CIDR that the planner gave this node; the cloud controller manager copies it to the Node.
POD_CIDR_KEY = "moyai.pod-cidr"

_DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


def new_uid() -> str:
    """A new cluster UID: 10 hexadecimal digits, unique enough for the clusters of one cloud."""
    return secrets.token_hex(5)


def cluster_tag(uid: str) -> str:
    """The tag string that marks an object as the cluster's own."""
    return f"{CLUSTER_TAG}={uid}"


def is_dns_label(name: str, *, max_length: int = 63) -> bool:
    """Whether ``name`` can be part of a host name (RFC 1123, starting with a letter)."""
    return len(name) <= max_length and _DNS_LABEL.fullmatch(name) is not None

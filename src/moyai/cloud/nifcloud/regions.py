"""The regions of NIFCLOUD. A region is a system of its own: nothing in one is known in another.

Always holds: a call goes to an address of this table or to one that the user wrote. The SDK builds an address of another
vendor's cloud for a region that it does not know, and would send the access key there.

Source: the SDK's ``endpoints.json`` (nifcloud 1.17.0).
"""

from __future__ import annotations

from moyai.core.errors import UsageError

REGIONS = ("jp-east-1", "jp-east-2", "jp-east-3", "jp-east-4", "jp-west-1", "us-east-1")


def endpoint(region: str) -> str:
    """The address of a region's computing API; its path (``/api/``) is the SDK's to add. Raises UsageError for a region that is
    not in the table."""
    if region not in REGIONS:
        raise UsageError(f"NIFCLOUD has no region {region!r}", hint=f"there are: {', '.join(REGIONS)}")
    return f"https://{region}.computing.api.nifcloud.com"

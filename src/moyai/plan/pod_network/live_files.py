"""What nodes that run are configured with while their cluster changes the mode of its pod network.

A new machine has these files from its start (``node_files``). The text is data for the nodes' agents, which write the files.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, cast

from moyai.core.errors import UsageError


@dataclass(frozen=True)
class LiveFiles:
    """``overhead``: bytes that pods' packets are smaller than the machines' network carries. ``rules``: the nftables table for
    what pods send, as text."""

    overhead: int
    rules: str


def write_live_files(files: LiveFiles) -> str:
    return json.dumps(asdict(files))


def read_live_files(text: str) -> LiveFiles:
    """Raises UsageError for a text that ``write_live_files`` has not written."""
    try:
        found = cast("dict[str, Any]", json.loads(text))
        return LiveFiles(int(found["overhead"]), str(found["rules"]))
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"MOYAI_NODE_FILES: should be what moyai writes ({type(error).__name__}: {error})") from None

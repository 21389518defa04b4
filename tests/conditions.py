"""The conditions under which something was measured or tried, as the results of a run name them."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Any

from moyai import __version__


def conditions(*, began: float, load: tuple[float, float, float]) -> dict[str, Any]:
    """``began``: the run's start, seconds since the epoch; ``load``: the load averages of that moment."""
    return {
        "moyai": __version__,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.time() - began),
        "processors": os.cpu_count(),
        "load before": [round(value, 1) for value in load],
        "load after": [round(value, 1) for value in os.getloadavg()],
    }

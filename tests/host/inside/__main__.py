"""One of the three parts, by its name."""

from __future__ import annotations

import sys

from .cloud import cloud
from .host import daemon, outer

{"outer": outer, "daemon": daemon, "cloud": cloud}[sys.argv[1]]()

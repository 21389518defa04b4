"""Writes the generated pages of the reference into the folder that the first argument names."""

from __future__ import annotations

import sys
from pathlib import Path

from moyai.cli.reference import PAGES

for name, render in PAGES.items():
    Path(sys.argv[1], name).write_text(render(), encoding="utf-8")

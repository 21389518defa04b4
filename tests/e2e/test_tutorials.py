"""The tutorials, run as they stand: every ``$`` line of their console blocks, in order, in the repository's folder."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.driver import said

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _commands(page: Path) -> list[str]:
    return [line[2:] for block in _BLOCK.findall(page.read_text()) for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize(
    "page",
    [
        # what a person reads first is never left out
        pytest.param(page, id=page.stem, marks=() if page.stem == "quickstart" else pytest.mark.long)
        for page in sorted((ROOT / "docs/tutorials").glob("*.md"))
    ],
)
def test_a_tutorial_does_what_it_says(page: Path, cloud_name: str) -> None:
    commands = _commands(page)
    assert commands
    path = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    for command in commands:
        start = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT,
            env={**os.environ, "PATH": path, "OS_CLOUD": cloud_name},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, said("$", [command], done)
        print(f"$ {command}\n{done.stdout}[{time.monotonic() - start:.1f} s]")

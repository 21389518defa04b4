"""The programs of the test in a virtual machine load on a stock Debian: with Python's standard library and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_LOAD = """
import importlib, sys

class Stock:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "moyai", "inside"}:
            raise ModuleNotFoundError(f"a stock host has no {name}")

sys.meta_path.insert(0, Stock())
importlib.import_module("inside." + sys.argv[1])
"""


@pytest.mark.parametrize("part", sorted(one.stem for one in (ROOT / "tests/host/inside").glob("[a-z]*.py")))
def test_a_program_in_the_virtual_machine_needs_no_package(part: str) -> None:
    path = f"{ROOT / 'tests/host'}:{ROOT / 'src'}"
    argv = [sys.executable, "-c", _LOAD, part]
    done = subprocess.run(argv, env={"PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.splitlines()[-1]

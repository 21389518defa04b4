"""The programs of a machine as modules, for tests of their functions: they are no part of the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import moyai.bootstrap


def load(name: str) -> ModuleType:
    """The program ``name`` as a machine has it, each time a module of its own."""
    spec = importlib.util.spec_from_file_location(name, Path(moyai.bootstrap.__file__).with_name("data") / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

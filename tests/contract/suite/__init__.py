"""The tests, by capability: one class a capability, in a module of this package.

Every class of the package belongs to the contract. Both runners derive their test classes from ``for_runner``, so a new class
runs on every adapter.
"""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module


def for_runner(module: str) -> dict[str, type]:
    """The contract's classes under names that pytest collects, as classes of the runner's module ``module``."""
    found: dict[str, type] = {}
    for part in pkgutil.iter_modules(__path__):
        name = f"{__name__}.{part.name}"
        for own in vars(import_module(name)).values():
            if inspect.isclass(own) and own.__module__ == name and not own.__name__.startswith("_"):
                found[f"Test{own.__name__}"] = type(f"Test{own.__name__}", (own,), {"__module__": module})
    return found

"""The kernel's settings of the network namespace that the calling thread is in."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path("/proc/sys")


def put(key: str, value: str) -> bool:
    """Set ``net/…`` to the value. False where this kernel does not have the setting, for a module of it is not loaded.

    Raises OSError where the kernel refuses the value or the process may not set it.
    """
    file = _FOLDER / key
    try:
        if file.read_text().strip() != value:
            file.write_text(value)
    except FileNotFoundError:
        return False
    return True

"""How a manifest names the controllers that a process of the cluster runs.

A node runs the moyai of its machine's image, whichever moyai has written the manifest. A process refuses a name in its
arguments that it does not know, and a pod would never start. Always holds: the arguments name only controllers that every
moyai of such manifests knows. Names that came later are in a variable. A process obeys those of them that it knows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

ARGUMENT = "--controllers="
#: The variable: names with commas between.
LATER = "MOYAI_CONTROLLERS"


def split_names(names: str) -> tuple[str, ...]:
    """Names with commas between."""
    return tuple(part.strip() for part in names.split(",") if part.strip())


def controllers_argument(controllers: Iterable[str], settled: Collection[str]) -> str:
    """``settled``: names that may be in arguments."""
    return f"{ARGUMENT}{','.join(name for name in controllers if name in settled)}"


def later_controllers(controllers: Iterable[str], settled: Collection[str]) -> list[dict[str, str]]:
    """Entries of the container's ``env``."""
    later = [name for name in controllers if name not in settled]
    return [{"name": LATER, "value": ",".join(later)}] if later else []


def wanted_controllers(argument: str, later: str, *, known: Collection[str]) -> tuple[str, ...]:
    """What a process is asked to run. A name of the argument that nobody knows stays in it, to be refused."""
    return tuple(dict.fromkeys((*split_names(argument), *(name for name in split_names(later) if name in known))))

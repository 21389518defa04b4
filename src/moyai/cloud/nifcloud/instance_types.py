"""The table of instance types: no call of NIFCLOUD lists them with their sizes.

Always holds: the names are those of the API's model, so that the API takes each of them. A name says the class, which has a
number of CPUs, and the memory in GB where it is not the class's least. A letter before it says the generation; not every zone
has every generation.

Sources: the enumeration ``InstanceType`` of the SDK's model; numbers of CPUs: the vendor's list of server types, not tried on
the real cloud.
"""

from __future__ import annotations

from moyai.cloud.model import Flavor

#: Class → CPUs, and its sizes in GB; 0 stands for the name without a number, which has the class's least.
_CLASSES: dict[str, tuple[int, float, tuple[int, ...]]] = {
    "mini": (1, 0.5, (0,)),
    "small": (1, 1, (0, 2, 4, 8, 16)),
    "medium": (2, 2, (0, 4, 8, 16, 24)),
    "large": (4, 4, (0, 8, 16, 24, 32)),
    "extra-large": (6, 8, (8, 16, 24, 32, 48)),
    "double-large": (8, 16, (16, 24, 32, 48, 64, 96)),
    "triple-large": (12, 32, (32, 48, 64, 96, 128)),
    "quad-large": (16, 64, (64, 96, 128, 256)),
    "septa-large": (24, 128, (128, 256)),
    "octa-large": (28, 256, (256, 384, 512)),
}
#: Generation → the types that it has.
_ALL = tuple(f"{name}{size or ''}" for name, (_, _, sizes) in _CLASSES.items() for size in sizes)
_UP_TO_DOUBLE = tuple(one for one in _ALL if not one.startswith(("triple", "quad", "septa", "octa")))
_GENERATIONS: dict[str, tuple[str, ...]] = {
    "": _ALL,
    "h2-": _ALL,
    "e-": _UP_TO_DOUBLE,
    "e2-": _UP_TO_DOUBLE,
    "c-": ("small", "small2", "small4", "medium", "medium4", "medium8", "large", "large8"),
    "c2-": ("small", "small2", "small4", "medium", "medium4", "medium8", "large", "large8"),
    "c2r-": ("small", "small2", "medium", "medium4", "large"),
    "e2r-": ("small", "small2", "medium", "medium4", "large", "large8", "extra-large8", "double-large16"),
    "h2r-": (
        "small", "small2", "small4", "medium", "medium4", "medium8", "large", "large8", "large16", "extra-large8",
        "extra-large16", "extra-large24", "double-large16", "double-large24", "double-large32", "triple-large32",
        "triple-large48", "quad-large64",
    ),
}  # fmt: skip


def _flavor(generation: str, plain: str) -> Flavor:
    name = plain.rstrip("0123456789")
    cpus, least, _ = _CLASSES[name]
    gigabytes = int(plain.removeprefix(name)) if plain != name else least
    return Flavor(generation + plain, generation + plain, cpus, round(gigabytes * 1024))


FLAVORS: tuple[Flavor, ...] = tuple(_flavor(generation, one) for generation, names in _GENERATIONS.items() for one in names)

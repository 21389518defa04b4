"""Types of additional disks, as StorageClasses name them, and what else such a class may say. Pure.

Words, defaults and refusals are those of the vendor's CSI driver: names of parameters in any case, ``type``, ``accountingType``
(``hourly`` or ``monthly``) and nothing else. The three types without a letter stand for one of two; the driver draws one, and
here it is the first, so that a second try asks for the same disk. Monthly accounting is a part of the type here.
"""

from __future__ import annotations

from collections.abc import Mapping

from moyai.core.errors import UsageError

#: Type, as StorageClasses name it → what CreateVolume is sent.
DISK_TYPES: Mapping[str, str] = {
    "standard": "2",
    "high-speed-a": "3",
    "high-speed-b": "4",
    "flash": "5",
    "standard-flash-a": "6",
    "standard-flash-b": "7",
    "high-speed-flash-a": "8",
    "high-speed-flash-b": "9",
}
#: Where none is named.
DEFAULT_TYPE = "standard-flash-a"
_EITHER = {"high-speed": "high-speed-a", "standard-flash": "standard-flash-a", "high-speed-flash": "high-speed-flash-a"}
_ACCOUNTING = {"": "", "hourly": "", "monthly": " monthly"}
#: Read by the side-cars, which hand them over all the same.
_OTHERS = ("csi.storage.k8s.io/",)


def disk_type(parameters: Mapping[str, str]) -> str:
    """The type, with `` monthly`` behind it where it is charged so; empty where the class names neither."""
    given = {name.lower(): value for name, value in parameters.items() if not name.lower().startswith(_OTHERS)}
    if wrong := sorted(set(given) - {"type", "accountingtype"}):
        raise UsageError(f"a StorageClass of this driver has no parameter {', '.join(wrong)}", hint="type, accountingType")
    word, accounting = given.get("type", ""), given.get("accountingtype", "").lower()
    kind = _EITHER.get(word, word)
    if kind and kind not in DISK_TYPES:
        known = ", ".join(sorted((*DISK_TYPES, *_EITHER)))
        raise UsageError(f"NIFCLOUD has no disk type {word!r}", hint=f"there are: {known}")
    if accounting not in _ACCOUNTING:
        raise UsageError(f"accountingType: {accounting!r}, should be hourly or monthly")
    ending = _ACCOUNTING[accounting]
    return f"{kind or DEFAULT_TYPE}{ending}" if kind or ending else ""


def split_type(type_name: str) -> tuple[str, bool]:
    """(type, charged by the month) of what ``disk_type`` returned."""
    kind, space, ending = type_name.partition(" ")
    return kind or DEFAULT_TYPE, bool(space) and ending == "monthly"

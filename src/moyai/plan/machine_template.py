"""What a machine is made with, as one short text in its server's metadata, and what differs between two such texts.

Always holds: the text names aspects, each with a value or a digest of it, so that a plan can say what differs. An aspect that
one of two texts does not have is no difference: another version of moyai may know more of them. Of a kubelet's
settings the text has only those that differ from what clusters had before the setting existed, so a setting that a later moyai
adds changes no text. A text without an aspect of the root volume is of a machine on the flavor's disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from moyai.spec.model import ClusterSpec
from moyai.spec.security import BEFORE

#: Fields of ``spec.security`` that a kubelet has from its machine's start.
KUBELET_FIELDS = (
    "seccompDefault",
    "podPidsLimit",
    "protectKernelDefaults",
    "evictionHard",
    "imageGCHighThresholdPercent",
)
#: Aspects that have their value in the text.
_SHOWN = {"kubernetes": "Kubernetes", "emulates": "emulated version"}
#: Aspects that have a digest.
_NAMED = {"root": "root volume", "image": "image", "kubelet": "kubelet settings", "labels": "labels", "taints": "taints"}


@dataclass(frozen=True)
class Versions:
    """Kubernetes on the machines that are made now. ``emulated``: the minor version as which control planes behave, empty for
    their own. ``held``: machines of another version stay. ``back``: machines go back to the version that they had."""

    control_planes: str
    workers: str
    emulated: str = ""
    held: bool = False
    back: bool = False

    @classmethod
    def of(cls, spec: ClusterSpec) -> Versions:
        """Of a cluster that is not on its way to another version."""
        return cls(spec.kubernetes_version, spec.kubernetes_version)


def machine_template(spec: ClusterSpec, *, pool: str, versions: Versions | None = None) -> str:
    """Of a machine of this pool; of a control plane where the spec has no such pool."""
    versions = versions or Versions.of(spec)
    found = next((one for one in spec.node_pools if one.name == pool), None)
    version = versions.workers if found else versions.control_planes
    security, before = (one.model_dump(mode="json", by_alias=True) for one in (spec.security, BEFORE))
    aspects = {
        "kubernetes": version,
        "image": _digest(spec.image_of(version)),
        "kubelet": _digest({name: security[name] for name in KUBELET_FIELDS if security[name] != before[name]}),
    }
    root = (found or spec.control_plane).root_volume
    if root.size_gib:
        aspects["root"] = _digest([root.size_gib, root.type])
    if found is None:
        aspects["emulates"] = versions.emulated
    else:
        aspects["labels"] = _digest(found.labels)
        aspects["taints"] = _digest(sorted((taint.key, taint.effect, taint.value) for taint in found.taints))
    return ",".join(f"{name}={value}" for name, value in aspects.items())


def made_with(template: str) -> str:
    """The version of Kubernetes that a machine was made with; empty where its template does not say it."""
    return _read(template).get("kubernetes", "")


def differences(made: str, wanted: str, *, held: bool = False) -> Iterator[str]:
    """What a machine made with ``made`` has otherwise than ``wanted`` says, in a few words each. ``held``: apart from what
    another version of Kubernetes brings."""
    has, wants = _read(made), _read(wanted)
    version = wants.get("kubernetes", "")
    # each version has an image of its own, and may emulate another one
    implied = ("image", "emulates") if has.get("kubernetes", version) != version else ()
    if has.get("root", "") != wants.get("root", ""):
        yield _NAMED["root"]
    for name, value in wants.items():
        if has.get(name, value) == value or name in implied or (held and name in _SHOWN):
            continue
        if name in _SHOWN:
            yield f"{_SHOWN[name]} {has[name] or 'its own'} → {value or 'its own'}"
        else:
            yield _NAMED.get(name, name)


def _read(template: str) -> dict[str, str]:
    parts = (part.partition("=") for part in template.split(","))
    return {name: value for name, equals, value in parts if equals}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]

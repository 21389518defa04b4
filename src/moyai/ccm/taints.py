"""Taints of Nodes as a patch has them."""

from __future__ import annotations

from collections.abc import Iterable

from moyai.kube.objects import Taint
from moyai.kube.resources import Json


def taint_list(taints: Iterable[Taint]) -> list[Json]:
    """The value of ``spec.taints``, which a patch replaces as a whole."""
    return [{"key": one.key, "effect": one.effect, **({"value": one.value} if one.value else {})} for one in taints]

"""The pinned upstream components: fetched as official releases or built from their Go modules, kept in the cache.

    toolchain = Toolchain(default_paths(), reporter)
    kubelet = toolchain.ensure(["kubernetes"])["kubernetes"].files["kubelet"]

An installed component is used as it is, without network. A missing one comes as the official release file where its host
answers and its checksum is pinned, else it is built. Which components there are and how each is made: ``pins.toml``.
"""

from __future__ import annotations

from moyai.toolchain.component_store import Component
from moyai.toolchain.golang import HOST_PACKAGES
from moyai.toolchain.kubectl import find_kubectl, get_kubectl
from moyai.toolchain.pins import Pin, Pins, load_pins
from moyai.toolchain.toolchain import TASK_PREFIX, ListedComponent, Source, Toolchain

__all__ = [
    "HOST_PACKAGES",
    "TASK_PREFIX",
    "Component",
    "ListedComponent",
    "Pin",
    "Pins",
    "Source",
    "Toolchain",
    "find_kubectl",
    "get_kubectl",
    "load_pins",
]

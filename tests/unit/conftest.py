"""What all unit tests have: an event loop (the system's, or with ``pytest.mark.virtual_time`` one whose time jumps over every
wait), and a collector of garbage that does not walk over thousands of collected tests again and again."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping

import pytest
from hypothesis import settings

from tests.fakes.clock import VirtualLoop

# how long an example takes depends on what else the machine does
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": VirtualLoop} if item.get_closest_marker("virtual_time") else {"system": asyncio.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that read the syntax trees of all files run in one process, so that each file is parsed once."""
    for item in items:
        if {"tree_of", "nodes_of"} & vars(getattr(item, "module", item)).keys():
            item.add_marker(pytest.mark.xdist_group("syntax"))


def pytest_collection_finish() -> None:
    """What was collected lives until the end: a tenth of the run would go into looking for garbage in it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)

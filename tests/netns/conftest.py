"""Fixtures of the kernel tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.lb_cloud import Cloud
from tests.netns.lb_world import MEMBERS, world


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with world(tmp_path) as net:
        for address in MEMBERS:
            net.start(address)
        made = Cloud(net, tmp_path / "lb")
        made.start()
        try:
            yield made
        finally:
            for tree in list(made.store.trees.values()):
                made.delete(tree)
            made.stop()

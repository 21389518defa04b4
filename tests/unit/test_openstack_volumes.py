"""Cinder and Keystone: what the adapter sends, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from moyai.cloud.model import (
    DiskState,
)
from tests.unit.openstack_server import OpenStackServer, openstack_server

NET = "/network/v2.0"
TAG = "moyai.cluster=0123456789"


@pytest.fixture
def played() -> Generator[OpenStackServer]:
    with openstack_server() as server:
        yield server


def test_volumes_are_filtered_also_where_the_cloud_ignores_the_filter(played: OpenStackServer) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "1", "name": "a", "status": "in-use", "size": 1, "metadata": {"k": "v"}, "attachments": [{"server_id": "i1"}]},
        {"id": "2", "name": "b", "status": "available", "size": 1, "metadata": {}, "attachments": []},
    ]
    played.on("GET", "/volume/v3/volumes/detail", {"volumes": rows})
    (found,) = played.cloud().disks.volumes(metadata={"k": "v"})
    assert (found.id, found.state, found.attached_server_ids) == ("1", DiskState.IN_USE, ("i1",))
    assert played.made("GET", "/volume/v3/volumes/detail")[0].query["metadata"] == ["{'k': 'v'}"]

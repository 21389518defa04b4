"""Cinder and Keystone: what the adapter sends, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from moyai.cloud.model import (
    DiskState,
)
from tests.unit.openstack_server import Answer, OpenStackServer, openstack_server

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


def test_an_application_credential_is_limited_to_the_roles_named(played: OpenStackServer) -> None:
    path = "/v3/users/u1/application_credentials"
    played.on("POST", path, Answer(201, {"application_credential": {"id": "i", "secret": "s", "name": "a-ccm"}}))
    played.on("GET", path, {"application_credentials": [{"id": "i", "name": "a-ccm"}, {"id": "j", "name": "b"}], "links": {}})
    credentials = played.cloud().credentials
    assert credentials.create_credential(name="a-ccm", roles=["member"], description="d") == ("i", "s")
    sent = played.made("POST", path)[0].json["application_credential"]
    assert sent["roles"] == [{"name": "member"}]
    assert sent["unrestricted"] is False
    assert credentials.credentials(name_prefix="a-") == {"a-ccm": "i"}

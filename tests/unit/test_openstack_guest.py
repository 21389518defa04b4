"""What a machine of OpenStack finds out about itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from moyai.cloud.factory import ADAPTERS
from moyai.cloud.model import Instance
from moyai.cloud.openstack.guest import OpenStackGuest, disk_links, find, from_json


@pytest.mark.parametrize(
    "text",
    [
        '{"uuid": "u1", "availability_zone": "az1", "meta": {}}',
        '{"v1": {"instance_id": "u1", "availability_zone": "az1"}, "ds": {"meta_data": {}}}',
        '{"v1": {"instance_id": "i-7"}, "ds": {"meta_data": {"uuid": "u1", "availability_zone": "az1"}}}',
    ],
)
def test_the_machine_knows_itself(text: str) -> None:
    assert from_json(text) == Instance("u1", "az1")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"v1": 3}', "<html>"])
def test_a_note_that_tells_nothing(text: str) -> None:
    assert from_json(text) is None


def test_the_cloud_is_asked_only_when_no_note_tells_all(tmp_path: Path) -> None:
    note = tmp_path / "note"
    asked: list[str] = []

    def get() -> str:
        asked.append("x")
        return '{"uuid": "u1", "availability_zone": "az2"}'

    assert find([note], get) == Instance("u1", "az2")
    note.write_text('{"uuid": "u1"}')
    assert find([note], get) == Instance("u1", "az2")
    note.write_text('{"uuid": "u1", "availability_zone": "az1"}')
    assert find([note], get) == Instance("u1", "az1")
    assert len(asked) == 2

    def silent() -> str:
        raise OSError("no route")

    assert find([], silent) is None


def test_where_a_disk_shows() -> None:
    assert disk_links("0a1b2c3d-4e5f-6789-abcd-ef0123456789")[0] == "/dev/disk/by-id/virtio-0a1b2c3d-4e5f-6789-a"


def test_the_drivers_name_leads_to_the_adapter_of_its_cloud() -> None:
    assert isinstance(ADAPTERS.named("openstack").guest(), OpenStackGuest)

"""What the adapter asks of Nova to stop, start, wake and reboot a machine."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from moyai.core.errors import Conflict
from tests.unit.openstack_server import Answer, OpenStackServer, openstack_server

SERVER: dict[str, Any] = {"id": "i1", "name": "a-worker-1", "flavor": {"original_name": "m1.small"}, "addresses": {}}


@pytest.fixture
def played() -> Generator[OpenStackServer]:
    with openstack_server() as server:
        yield server


def test_stopping_what_is_stopped_is_success(played: OpenStackServer) -> None:
    body = {"conflictingRequest": {"code": 409, "message": "Cannot 'stop' instance i1 while it is in vm_state stopped"}}
    played.on("POST", "/compute/v2.1/servers/i1/action", Answer(409, body))
    played.on("GET", "/compute/v2.1/servers/i1", {"server": {**SERVER, "status": "SHUTOFF"}})
    compute = played.cloud().machines
    compute.stop_server("i1")
    with pytest.raises(Conflict):
        compute.start_server("i1")


@pytest.mark.parametrize(
    ("status", "action"),
    [("PAUSED", "unpause"), ("SUSPENDED", "resume"), ("SHELVED", "unshelve"), ("SHELVED_OFFLOADED", "unshelve")],
)
def test_a_machine_that_is_held_still_is_woken_by_the_call_that_fits(played: OpenStackServer, status: str, action: str) -> None:
    played.on("GET", "/compute/v2.1/servers/i1", {"server": {**SERVER, "status": status}})
    played.on("POST", "/compute/v2.1/servers/i1/action", Answer(202))
    played.cloud().machines.resume_server("i1")
    assert [one.json for one in played.made("POST", "/compute/v2.1/servers/i1/action")] == [{action: None}]


def test_a_machine_that_runs_needs_no_waking_and_is_rebooted_softly(played: OpenStackServer) -> None:
    played.on("GET", "/compute/v2.1/servers/i1", {"server": {**SERVER, "status": "ACTIVE"}})
    played.on("POST", "/compute/v2.1/servers/i1/action", Answer(202))
    compute = played.cloud().machines
    compute.resume_server("i1")
    compute.reboot_server("i1")
    assert [one.json for one in played.made("POST", "/compute/v2.1/servers/i1/action")] == [{"reboot": {"type": "SOFT"}}]

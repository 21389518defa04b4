"""What the cloud's words mean: every combination that fencing stands on, and the statuses that plans and waits go by."""

from __future__ import annotations

import pytest

from moyai.cloud.load_balancers import (
    BalancerState,
    BalancingAlgorithm,
    CheckType,
    Health,
    SessionPersistence,
    TrafficProtocol,
)
from moyai.cloud.model import NO_SERVER, Activity, DiskState, Evidence, PortUse, Power
from moyai.cloud.openstack import disk_states, octavia_words, parse, server_states
from moyai.cloud.openstack.provider_ids import provider_id, server_id

_NUMBERS = {"": "0", "running": "1", "paused": "3", "shutdown": "4", "crashed": "6", "suspended": "7"}


def evidence(state: str, power: str, *, task: str = "", status: str = "X") -> Evidence:
    return server_states.evidence(status=status, state=state, hypervisor=_NUMBERS[power], task=task)


@pytest.mark.parametrize(
    ("state", "power", "task", "verdict"),
    [
        ("stopped", "shutdown", "", Activity.OFF),
        ("stopped", "crashed", "", Activity.OFF),
        ("error", "shutdown", "", Activity.OFF),
        ("shelved", "shutdown", "", Activity.OFF),
        ("shelved_offloaded", "", "", Activity.OFF),
        ("soft-delete", "shutdown", "", Activity.OFF),
        ("stopped", "shutdown", "deleting", Activity.OFF),
        ("stopped", "shutdown", "image_uploading", Activity.OFF),
        # the hypervisor has not said so, or says otherwise
        ("stopped", "", "", Activity.BETWEEN),
        ("stopped", "running", "", Activity.BETWEEN),
        ("error", "running", "", Activity.BETWEEN),
        ("error", "", "", Activity.BETWEEN),
        ("soft-delete", "running", "", Activity.BETWEEN),
        ("", "", "", Activity.BETWEEN),
        ("building", "", "spawning", Activity.BETWEEN),
        # something is being done to it: off for a moment is not off
        ("active", "shutdown", "", Activity.BETWEEN),
        ("active", "shutdown", "powering-off", Activity.BETWEEN),
        ("active", "shutdown", "rebooting", Activity.BETWEEN),
        ("active", "running", "reboot_started_hard", Activity.BETWEEN),
        ("stopped", "shutdown", "powering-on", Activity.BETWEEN),
        ("stopped", "shutdown", "powering-off", Activity.BETWEEN),
        ("shelved_offloaded", "", "spawning", Activity.BETWEEN),
        ("stopped", "shutdown", "rebuilding", Activity.BETWEEN),
        # it runs, or will go on with its file systems open
        ("active", "running", "", Activity.RUNNING),
        ("active", "", "", Activity.RUNNING),
        ("paused", "paused", "", Activity.RUNNING),
        ("suspended", "shutdown", "", Activity.RUNNING),
        ("rescued", "running", "", Activity.RUNNING),
        ("resized", "running", "", Activity.RUNNING),
    ],
)
def test_what_a_servers_states_mean(state: str, power: str, task: str, verdict: Activity) -> None:
    assert evidence(state, power, task=task).activity is verdict


def test_a_server_that_is_gone_is_off() -> None:
    assert evidence("deleted", "") == evidence("", "running", status="DELETED") == NO_SERVER


def test_only_a_plainly_active_machine_may_be_powered_off() -> None:
    states = [("active", ""), ("paused", ""), ("suspended", ""), ("rescued", ""), ("active", "rebooting")]
    assert [evidence(state, "running", task=task).may_power_off for state, task in states] == [True, False, False, False, False]


def test_the_words_name_all_that_was_said() -> None:
    assert evidence("stopped", "shutdown", status="SHUTOFF").words == "that its server is SHUTOFF, stopped, power shutdown"
    assert evidence("", "", task="spawning").words == "that its server is X, no state, power not known, spawning"


@pytest.mark.parametrize(
    ("status", "power"),
    [
        ("BUILD", Power.STARTING),
        ("ACTIVE", Power.RUNNING),
        ("SHUTOFF", Power.OFF),
        ("PAUSED", Power.SUSPENDED),
        ("SHELVED_OFFLOADED", Power.SUSPENDED),
        ("ERROR", Power.FAILED),
        ("UNKNOWN", Power.FAILED),
        ("SOFT_DELETED", Power.GONE),
        ("REBOOT", Power.STARTING),
        ("RESCUE", Power.HELD),
        ("VERIFY_RESIZE", Power.HELD),
        ("MIGRATING", Power.UNKNOWN),
        ("", Power.UNKNOWN),
    ],
)
def test_a_status_is_read_as_power(status: str, power: Power) -> None:
    assert server_states.power(status) is power


def test_a_machine_is_replaced_when_it_failed_or_is_gone() -> None:
    assert {power for power in Power if power.broken} == {Power.FAILED, Power.GONE}


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("CREATING", DiskState.CREATING),
        ("RESERVED", DiskState.ATTACHING),
        ("ATTACHING", DiskState.ATTACHING),
        ("IN-USE", DiskState.IN_USE),
        ("DETACHING", DiskState.DETACHING),
        ("BACKING-UP", DiskState.BUSY),
        ("DELETED", DiskState.DELETING),
        ("ERROR", DiskState.FAILED),
        ("ERROR_EXTENDING", DiskState.DEGRADED),
        ("AWAITING-TRANSFER", DiskState.UNKNOWN),
    ],
)
def test_a_status_of_a_volume_is_read_as_its_state(status: str, state: DiskState) -> None:
    assert disk_states.state(status) is state


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("ACTIVE", BalancerState.ACTIVE),
        ("PENDING_CREATE", BalancerState.BUSY),
        ("PENDING_UPDATE", BalancerState.BUSY),
        ("PENDING_DELETE", BalancerState.DELETING),
        ("DELETED", BalancerState.DELETED),
        ("ERROR", BalancerState.FAILED),
        ("", BalancerState.UNKNOWN),
    ],
)
def test_a_provisioning_status_is_read_as_a_balancers_state(status: str, state: BalancerState) -> None:
    assert octavia_words.state(status) is state


def test_each_word_of_a_load_balancer_is_read_as_the_value_that_writes_it() -> None:
    read_back = {
        TrafficProtocol: (octavia_words.PROTOCOLS, octavia_words.protocol),
        BalancingAlgorithm: (octavia_words.ALGORITHMS, octavia_words.algorithm),
        SessionPersistence: (octavia_words.PERSISTENCES, octavia_words.persistence),
        CheckType: (octavia_words.CHECKS, octavia_words.check),
    }
    for values, (written, read) in read_back.items():
        assert set(written) == {one for one in values if one and one.name != "OTHER"}
        assert {value: read(word) for value, word in written.items()} == {value: value for value in written}
        assert read("A_WORD_OF_A_LATER_VERSION").name == "OTHER"
    assert octavia_words.persistence("") is SessionPersistence.NONE


def test_an_operating_status_is_read_as_health() -> None:
    words = ("ONLINE", "DEGRADED", "ERROR", "OFFLINE", "NO_MONITOR")
    assert [octavia_words.health(word) for word in words] == [
        Health.ONLINE,
        Health.DEGRADED,
        Health.FAILED,
        Health.UNKNOWN,
        Health.UNKNOWN,
    ]


@pytest.mark.parametrize(
    ("provider_id", "found"),
    [
        ("openstack:///00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000001"),
        ("openstack://RegionOne/00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000001"),
        ("aws:///eu/i-1", None),
        ("", None),
    ],
)
def test_provider_ids_with_and_without_region(provider_id: str, found: str | None) -> None:
    assert server_id(provider_id) == found


def test_a_provider_id_names_the_server_it_was_made_of() -> None:
    server = "00000000-0000-0000-0000-000000000001"
    assert server_id(provider_id(server)) == server


def test_what_a_port_is_there_for_is_read_off_its_owner() -> None:
    owners = ["", "compute:az1", "network:router_interface_distributed", "network:router_gateway", "network:dhcp", "Octavia"]
    assert [parse.port_use(owner) for owner in owners] == [
        PortUse.NOTHING,
        PortUse.MACHINE,
        PortUse.ROUTER,
        PortUse.CLOUD,
        PortUse.CLOUD,
        PortUse.OTHER,
    ]
    assert [use for use in PortUse if not use.deletable] == [PortUse.ROUTER, PortUse.CLOUD]

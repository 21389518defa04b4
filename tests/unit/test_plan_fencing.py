"""Which nodes are fenced: every combination of the cloud's answer and the node's silence."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any
from unittest.mock import ANY

import pytest

from moyai.cloud.model import Activity, Evidence
from moyai.plan.fencing import (
    POLICIES,
    POWEROFF_SECONDS,
    Decision,
    Heartbeat,
    Policy,
    WatchedNode,
    decide,
    evidence_of,
    suspicious,
)

OFF = Evidence(Activity.OFF, "that it is off")
RUNNING = Evidence(Activity.RUNNING, "that it runs", may_power_off=True)
BETWEEN = Evidence(Activity.BETWEEN, "…")
PAUSED = Evidence(Activity.RUNNING, "that it is paused")


def node(silence: float, *, period: float = 3.0, watched: float | None = None, **more: Any) -> WatchedNode:
    heartbeat = Heartbeat(silence if watched is None else None, silence if watched is None else watched, period)
    return replace(WatchedNode(ready=True, fenced=False, heartbeat=heartbeat), **more)


def test_a_machine_that_the_cloud_does_not_have_is_off() -> None:
    assert evidence_of(None).activity is Activity.OFF


def test_every_fence_has_silence_and_a_machine_that_is_off_behind_it() -> None:
    silences = (0.0, 4.4, 4.6, 20.0, 39.0, 41.0, 500.0)
    machines = (None, OFF, RUNNING, BETWEEN, PAUSED)
    seen: set[str] = set()
    for policy, silence, machine, ready, silent in product(POLICIES, silences, machines, (True, False, None), (1, 5)):
        who = node(silence, ready=ready, silent=silent, answering=3)
        found = decide(who, machine, policy=policy)
        seen.add(found.action)
        assert found.requeue_after > 0
        may = policy != "off" and silence > 4.5
        assert (found.action == "fence") == (may and machine is OFF), (policy, silence, machine)
        cut = policy == "poweroff" and silence >= POWEROFF_SECONDS and machine is RUNNING and ready is not True and silent <= 3
        assert (found.action == "poweroff") == cut, (policy, silence, machine, ready, silent)
        assert (found.action == "none") == (not may)
        if found.action == "poweroff":
            assert who.silent <= who.answering
    assert seen == {"none", "wait", "fence", "poweroff"}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("machine", [None, OFF, RUNNING, BETWEEN, PAUSED])
@pytest.mark.parametrize("silence", [0.5, 100.0])
def test_a_fence_is_lifted_as_soon_as_either_reason_is_gone(policy: Policy, machine: Evidence | None, silence: float) -> None:
    found = decide(node(silence, fenced=True), machine, policy=policy).action
    if policy == "off":
        assert found == "lift"
    elif machine is None:
        assert found == "keep"
    else:
        assert found == ("keep" if machine is OFF and silence > 4.5 else "lift")


def test_after_a_restart_a_fence_is_not_lifted_because_few_renewals_were_seen_yet() -> None:
    assert decide(node(0, watched=0.1, fenced=True), OFF, policy="verify").action == "keep"


def test_after_a_restart_silence_counts_from_the_first_look() -> None:
    assert decide(node(0, watched=1.0), OFF, policy="verify").action == "none"
    assert decide(node(0, watched=5.0), OFF, policy="verify").action == "fence"


def test_a_node_with_the_usual_lease_is_given_its_time() -> None:
    assert decide(node(14.0, period=10.0), OFF, policy="verify").action == "none"
    assert decide(node(15.1, period=10.0), OFF, policy="verify").action == "fence"


def test_a_node_without_a_lease_is_judged_by_its_condition() -> None:
    heartbeat = Heartbeat(None, 100.0, 10.0, has_lease=False)
    assert not suspicious(WatchedNode(True, False, heartbeat))
    assert decide(WatchedNode(True, False, heartbeat), None, policy="verify").action == "none"
    assert decide(WatchedNode(False, False, heartbeat), OFF, policy="verify").action == "fence"


def test_the_next_look_of_a_node_that_answers_is_when_its_heartbeat_would_be_overdue() -> None:
    assert decide(node(1.0), None, policy="verify").requeue_after == pytest.approx(3.55)


def test_a_doubt_is_reported_only_when_it_lasts_and_says_why() -> None:
    assert not decide(node(6.0), RUNNING, policy="verify").report
    found = decide(node(16.0), RUNNING, policy="verify")
    assert found.report
    assert found.reason == "it has not answered for 16 s, but the cloud says that it runs"
    assert found.doubt == decide(node(17.0), RUNNING, policy="verify").doubt == "but the cloud says that it runs"
    assert "cannot be asked" in decide(node(16.0), None, policy="verify").reason
    many = decide(node(50.0, ready=False, silent=4, answering=1), RUNNING, policy="poweroff")
    assert many.action == "wait"
    assert "4 of 5 nodes are silent" in many.reason


def test_a_machine_that_is_being_changed_is_looked_at_each_second_and_reported_only_when_it_takes_long() -> None:
    assert decide(node(100.0), BETWEEN, policy="poweroff") == Decision("wait", ANY, 1.0, False, "but the cloud says …")
    assert decide(node(125.0), BETWEEN, policy="verify").report


def test_a_long_silence_asks_the_cloud_less_often() -> None:
    assert decide(node(10.0), RUNNING, policy="verify").requeue_after == 1.0
    assert decide(node(100.0), RUNNING, policy="verify").requeue_after == 5.0

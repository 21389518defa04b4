"""What a control plane does to become etcd's member beside others: the rules that keep the majority, without an etcd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.machine_programs import load

PROGRAM = load("etcd_member")
Member = dict[str, Any]


def url(number: int) -> str:
    return f"https://10.8.0.{10 + number}:2380"


def member(number: int, *, name: bool = True, learner: bool = False) -> Member:
    # as the JSON gateway answers: what is false is left out
    found: Member = {"ID": str(100 + number), "peerURLs": [url(number)]}
    if name:
        found["name"] = f"plane-{number}"
    if learner:
        found["isLearner"] = True
    return found


def step(members: Sequence[Member], number: int, *healthy: int) -> tuple[str, str]:
    return PROGRAM.next_step(members, url(number), healthy=[str(100 + one) for one in healthy])


def test_a_new_machine_is_added_and_then_starts() -> None:
    assert step([member(0)], 1, 0) == ("add", "")
    assert step([member(0), member(1, name=False, learner=True)], 1, 0) == ("ready", "101")


def test_one_machine_joins_at_a_time() -> None:
    assert step([member(0), member(1, name=False, learner=True)], 2, 0) == ("wait", "another machine is joining")
    assert step([member(0), member(1, learner=True)], 2, 0, 1) == ("wait", "another machine is joining")


def test_the_member_of_an_earlier_machine_goes_before_a_blank_machine_starts() -> None:
    three = [member(0), member(1), member(2)]
    assert step(three, 1, 0, 2) == ("remove", "101")
    assert step([member(0), member(2)], 1, 0, 2) == ("add", "")


def test_no_member_is_removed_that_would_leave_no_majority() -> None:
    three = [member(0), member(1), member(2)]
    assert step(three, 1, 0) == ("wait", "1 of the 2 other members are healthy: no majority")
    # the member that is to go does not count, however healthy an old machine under its address is
    assert step(three, 1, 0, 1) == ("wait", "1 of the 2 other members are healthy: no majority")


def test_a_learner_that_did_not_come_goes_without_a_majority() -> None:
    assert step([member(0), member(1), member(2, learner=True)], 2, 0) == ("remove", "102")


@st.composite
def etcds(draw: st.DrawFn) -> tuple[list[Member], set[str]]:
    size = draw(st.integers(1, 5))
    members = [member(number) for number in range(size)]
    if size < 5 and draw(st.booleans()):
        members.append(member(size, name=draw(st.booleans()), learner=True))
    well = {one["ID"] for one in members if draw(st.booleans())}
    return members, well


@given(etcds(), st.integers(0, 5))
def test_no_step_takes_the_majority_away(etcd: tuple[list[Member], set[str]], number: int) -> None:
    members, well = etcd
    verb, what = PROGRAM.next_step(members, url(number), healthy=well)
    mine = [one for one in members if url(number) in one["peerURLs"]]
    if verb == "remove":
        (gone,) = mine
        assert gone["ID"] == what
        voters = [one for one in members if one is not gone and not one.get("isLearner")]
        if not gone.get("isLearner"):
            assert len([one for one in voters if one["ID"] in well]) > len(voters) // 2
    elif verb == "add":
        assert not mine
        assert not any(one.get("isLearner") for one in members)
    elif verb == "ready":
        # never an etcd without data under the address of a member that has had some
        assert not mine[0].get("name")


def test_the_flag_names_all_members_and_the_machine_itself() -> None:
    members = [member(0), member(1, name=False, learner=True)]
    assert PROGRAM.initial_cluster(members, name="plane-1", url=url(1)) == f"plane-0={url(0)},plane-1={url(1)}"


def test_keepalived_speaks_to_each_other_machine() -> None:
    here = {"name": "plane-0", "address": "10.8.0.10", "virtual": "10.8.0.4", "priority": 100}
    text = PROGRAM.keepalived_conf(here, {"10.8.0.100", "10.8.0.11"}, interface="ens3")
    assert "  unicast_src_ip 10.8.0.10\n  unicast_peer {\n    10.8.0.11\n    10.8.0.100\n  }\n" in text
    assert "    10.8.0.4/32 dev ens3\n" in text
    assert "  state BACKUP\n  nopreempt\n" in text


@pytest.mark.parametrize("members", [[], [{"ID": "1", "peerURLs": ["https://10.8.0.10:2380"]}]])
def test_an_answer_without_names_is_no_reason_to_fail(members: list[Member]) -> None:
    assert PROGRAM.initial_cluster(members, name="a", url=url(1)) == f"a={url(1)}"


class Etcd(RuleBasedStateMachine):
    """A model of etcd with five addresses, at which machines die and blank ones come, whatever else is under way.

    ``members``: address → its member. ``alive``: addresses whose etcd runs. ``blank``: addresses with a machine without data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.members: dict[int, Member] = {0: member(0)}
        self.alive, self.blank = {0}, {1, 2, 3, 4}
        self.had_majority = True

    def voters(self) -> set[int]:
        return {number for number, one in self.members.items() if not one.get("isLearner")}

    @property
    def majority(self) -> bool:
        return len(self.voters() & self.alive) > len(self.voters()) // 2

    @rule(number=st.integers(0, 4))
    def a_machine_dies(self, number: int) -> None:
        self.alive.discard(number)
        self.had_majority = self.majority

    @rule(number=st.integers(0, 4))
    def a_blank_machine_comes(self, number: int) -> None:
        if number not in self.alive:
            self.blank.add(number)

    @precondition(lambda self: self.majority and bool(self.blank))
    @rule(data=st.data())
    def a_blank_machine_acts(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.blank)))
        well = [one["ID"] for at, one in self.members.items() if at in self.alive]
        verb, what = PROGRAM.next_step(list(self.members.values()), url(number), healthy=well)
        if verb == "remove":
            assert self.members.pop(number)["ID"] == what
        elif verb == "add":
            assert not any(one.get("isLearner") for one in self.members.values())
            self.members[number] = member(number, name=False, learner=True)
        elif verb == "ready":
            assert "name" not in self.members[number], "an etcd without data takes the place of one that had some"
            self.members[number]["name"] = f"plane-{number}"
            self.blank.discard(number)
            self.alive.add(number)

    @precondition(lambda self: self.majority)
    @rule(number=st.integers(0, 4))
    def a_learner_has_all_data(self, number: int) -> None:
        if number in self.alive and number in self.members:
            self.members[number].pop("isLearner", None)

    @invariant()
    def the_majority_is_lost_by_deaths_alone(self) -> None:
        assert self.majority or not self.had_majority


Etcd.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_whatever_dies_no_step_of_a_machine_loses_the_majority = Etcd.TestCase

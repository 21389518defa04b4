"""Names and owners of NIFCLOUD's objects: 15 letters and digits, 40 characters, both ways."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moyai.cloud.nifcloud.marks import (
    DESCRIPTION_LENGTH,
    Mark,
    adopted,
    cluster_code,
    mark_of,
    read_mark,
    wire_name,
)
from moyai.cloud.nifcloud.nic_plans import NicPlan, lan_id, lan_mark, read_plan
from moyai.core.errors import Conflict, Terminal, UsageError
from moyai.core.ids import cluster_tag

UID = "0123456789"
NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
UIDS = st.from_regex(r"[0-9a-f]{10}", fullmatch=True)


@given(UIDS, NAMES)
def test_a_description_gives_back_cluster_and_name(uid: str, name: str) -> None:
    mark = Mark(uid, name)
    assert read_mark(mark.text) == mark
    assert len(mark.text) <= DESCRIPTION_LENGTH
    assert lan_mark(lan_id(mark)) == mark


@given(UIDS, NAMES)
def test_a_name_in_the_cloud_is_one_that_it_takes_and_shows_its_cluster(uid: str, name: str) -> None:
    made = wire_name(Mark(uid, name))
    assert re.fullmatch(r"[a-z][0-9a-z]{10,14}", made)
    assert made.startswith(cluster_code(uid))
    assert made == wire_name(Mark(uid, name))


def test_names_of_one_cluster_and_of_two_differ() -> None:
    names = [f"demo-{pool}-{number}" for pool in ("control-plane", "workers", "workers1") for number in range(40)]
    found = {name: wire_name(Mark(UID, name)) for name in names}
    assert len(set(found.values())) == len(names)
    assert not set(found.values()) & {wire_name(Mark("abcdef0123", name)) for name in names}
    assert found["demo-workers-0"][5:9] == "wor0"
    assert found["demo-control-plane-12"][5:9] == "pl12"


def test_the_names_of_the_default_cluster_fit() -> None:
    for name in (
        "quickstart-control-plane-99",
        "quickstart-workers-99",
        "quickstart-security-group",
        "quickstart-control-plane",
    ):
        assert read_mark(Mark(UID, name).text) == Mark(UID, name)


def test_a_name_that_does_not_fit_is_refused_with_what_would_be_right() -> None:
    with pytest.raises(UsageError, match=r"too long for NIFCLOUD.*8 characters less"):
        _ = Mark(UID, "a-cluster-of-production-workers").text


@pytest.mark.parametrize("words", ["", "my web server", "moyai:", "moyai:0123456789", "Moyai:0123456789,x"])
def test_a_description_of_somebody_else_has_no_owner(words: str) -> None:
    assert read_mark(words) is None


def test_only_a_clusters_own_tag_can_be_kept() -> None:
    assert mark_of("n", [cluster_tag(UID)]) == Mark(UID, "n")
    with pytest.raises(Terminal, match="no tags"):
        mark_of("n", [cluster_tag(UID), "moyai.keep=true"])
    with pytest.raises(Terminal, match="no tags"):
        mark_of("n", [])


def test_an_object_of_the_right_name_and_another_owner_is_not_adopted() -> None:
    wanted = Mark(UID, "demo-workers-0")
    adopted(wanted, wanted, what="a server x")
    with pytest.raises(Conflict, match="somebody else's"):
        adopted(None, wanted, what="a server x")
    with pytest.raises(Conflict, match="of cluster abcdef0123"):
        adopted(Mark("abcdef0123", "demo-workers-0"), wanted, what="a server x")


def test_a_plan_of_a_network_card_is_its_own_id() -> None:
    plan = NicPlan(lan_id(Mark(UID, "demo-network")), UID, "demo-workers-0", "group", "10.0.0.7")
    assert read_plan(plan.id) == plan

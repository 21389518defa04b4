"""Which floating IP a Service's load balancer gets, keeps and lets go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moyai.cloud.model import FloatingIP
from moyai.core.errors import UsageError
from moyai.core.ids import KEEP_TAG
from moyai.plan.floating_ips import (
    AddressPlan,
    AddressRequest,
    AttachAddress,
    CreateAddress,
    DeleteAddress,
    DetachAddress,
    KeepAddress,
    is_settled,
    must_be_fresh,
    plan_address,
    plan_release,
)

REQUEST = AddressRequest("ours", "port")
OWN = FloatingIP("own", "203.0.113.1", "ACTIVE", "port", description="ours")
USERS = FloatingIP("users", "203.0.113.2", "DOWN")
OTHERS = FloatingIP("others", "203.0.113.3", "ACTIVE", "another", description="of another Service")


def test_the_one_on_the_port_settles_it_and_nothing_changes() -> None:
    assert is_settled(REQUEST, [OWN])
    assert plan_address(REQUEST, [OWN]) == AddressPlan(address=OWN.address)
    assert not is_settled(REQUEST, [])


def test_without_any_one_is_created_and_others_are_left_alone() -> None:
    assert plan_address(REQUEST, [USERS, OTHERS]) == AddressPlan((CreateAddress("port", ""),))


def test_one_left_over_from_an_earlier_load_balancer_is_attached_again() -> None:
    left = replace(OWN, port_id="")
    assert plan_address(REQUEST, [USERS, left]) == AddressPlan((AttachAddress("own", "port"),), left.address)


def test_a_list_that_shows_an_own_one_elsewhere_is_not_believed_when_it_is_old() -> None:
    assert must_be_fresh(REQUEST, [replace(OWN, port_id="deleted a moment ago")])
    assert must_be_fresh(replace(REQUEST, address="203.0.113.9"), [])
    assert not must_be_fresh(REQUEST, [OWN, USERS, OTHERS, replace(OWN, port_id="")])


def test_the_address_that_is_asked_for_replaces_the_own_one() -> None:
    request = replace(REQUEST, address=USERS.address)
    plan = plan_address(request, [OWN, USERS])
    assert plan == AddressPlan((DeleteAddress("own"), AttachAddress("users", "port")), USERS.address)
    # one that is not in the project is asked of the cloud
    assert plan_address(request, []) == AddressPlan((CreateAddress("port", USERS.address),), USERS.address)


def test_a_left_over_one_that_is_asked_for_by_address_is_not_deleted_on_the_way() -> None:
    left = replace(OWN, id="left", address="203.0.113.8", port_id="")
    plan = plan_address(replace(REQUEST, address=left.address), [OWN, left])
    assert plan == AddressPlan((DeleteAddress("own"), AttachAddress("left", "port")), left.address)


def test_an_address_in_use_elsewhere_is_refused_before_anything_changes() -> None:
    with pytest.raises(UsageError, match=r"203\.0\.113\.3 is in use by port another"):
        plan_address(replace(REQUEST, address=OTHERS.address), [OWN, OTHERS])


def test_an_internal_load_balancer_lets_go_of_what_it_has() -> None:
    request = replace(REQUEST, public=False)
    assert is_settled(request, [])
    assert not is_settled(request, [OWN])
    assert plan_address(request, [OWN]) == AddressPlan((DeleteAddress("own"),))
    assert plan_address(request, [replace(OWN, port_id="")]) == AddressPlan()


def test_release_deletes_own_ones_and_only_lets_go_of_those_of_users() -> None:
    theirs = replace(USERS, port_id="port")
    plan = plan_release(REQUEST, [OWN, theirs, OTHERS])
    assert plan == AddressPlan((DeleteAddress("own"), DetachAddress("users")), kept=(theirs.address,))


def test_one_that_is_to_be_kept_is_marked_once_and_outlives_the_service() -> None:
    keep = replace(REQUEST, keep=True)
    marked = replace(OWN, tags=(KEEP_TAG,))
    assert plan_address(keep, [OWN]).changes == (KeepAddress("own"),)
    assert plan_address(keep, [marked]).changes == ()
    assert plan_release(keep, [OWN]) == AddressPlan((KeepAddress("own"), DetachAddress("own")), kept=(OWN.address,))
    # what the user made is not ours to mark
    assert plan_address(keep, [replace(USERS, port_id="port")]).changes == ()

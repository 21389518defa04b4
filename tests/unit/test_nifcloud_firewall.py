"""Firewall groups and elastic addresses of NIFCLOUD, over the SDK's own wire."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from moyai.cloud.model import SecurityGroupRule
from moyai.cloud.nifcloud.error_codes import LostReply
from moyai.cloud.nifcloud.marks import Mark, wire_name
from moyai.core.errors import Conflict, NotFound, QuotaExceeded, Terminal
from moyai.core.ids import cluster_tag
from tests.fakes.nifcloud_account import AddressNotes
from tests.fakes.nifcloud_wire import NifcloudWire

UID = "0123456789"
TAG = cluster_tag(UID)
GROUP = wire_name(Mark(UID, "demo-worker"))
API = SecurityGroupRule(GROUP, protocol="tcp", port_min=6443, port_max=6443, remote_cidr="10.0.0.0/24")
NODE_PORTS = SecurityGroupRule(GROUP, protocol="tcp", port_min=30000, port_max=32767)
VRRP = SecurityGroupRule(GROUP, protocol="112", remote_cidr="10.0.0.9/32")
ALL = SecurityGroupRule(GROUP, direction="egress")


@pytest.fixture
def wire() -> NifcloudWire:
    made = NifcloudWire()
    made.cloud().firewall.create_security_group(name="demo-worker", description="moyai", tags=[TAG])
    return made


def rules(wire: NifcloudWire) -> list[SecurityGroupRule]:
    return [replace(one, id="") for one in wire.cloud().firewall.security_group_rules([GROUP])]


def test_a_group_shows_its_name_and_owner_and_is_made_once(wire: NifcloudWire) -> None:
    firewall = wire.cloud().firewall
    (seen,) = firewall.security_groups(tag=TAG)
    assert (seen.id, seen.name, seen.tags) == (GROUP, "demo-worker", (TAG,))
    assert firewall.create_security_group(name="demo-worker", tags=[TAG]).id == GROUP
    assert wire.count["CreateSecurityGroup"] == 1
    firewall.delete_security_group(GROUP)
    firewall.delete_security_group(GROUP)
    assert firewall.security_groups() == []


def test_a_group_in_use_and_a_foreign_one_stay(wire: NifcloudWire) -> None:
    found = wire.account.groups[GROUP]
    found["InstancesSet"] = [{"InstanceId": "web"}]
    with pytest.raises(Conflict, match="in use by web"):
        wire.cloud().firewall.delete_security_group(GROUP)
    found |= {"InstancesSet": [], "GroupDescription": "ours"}
    with pytest.raises(Conflict, match="not moyai's"):
        wire.cloud().firewall.delete_security_group(GROUP)
    assert wire.count["DeleteSecurityGroup"] == 0


def test_rules_come_back_as_they_were_asked_for_and_are_added_once(wire: NifcloudWire) -> None:
    wanted = [API, NODE_PORTS, VRRP, ALL]
    firewall = wire.cloud().firewall
    firewall.create_security_group_rules(wanted)
    firewall.create_security_group_rules(wanted)
    seen = rules(wire)
    assert seen[:2] == [API, NODE_PORTS]
    assert (seen[2].protocol, seen[2].remote_cidr) == ("vrrp", "10.0.0.9")
    assert seen[3] == ALL
    assert wire.count["AuthorizeSecurityGroupIngress"] == 1
    (sent,) = wire.sent("AuthorizeSecurityGroupIngress")
    assert "IpPermissions.1.ToPort" not in sent, "the API takes one port as FromPort alone"
    assert sent["IpPermissions.2.ToPort"] == "32767"


def test_a_rule_goes_by_its_content_and_what_is_gone_is_success(wire: NifcloudWire) -> None:
    firewall = wire.cloud().firewall
    made = firewall.create_security_group_rules([API, NODE_PORTS])
    wire.lose("RevokeSecurityGroupIngress")
    firewall.delete_security_group_rule(made[0].id)
    firewall.delete_security_group_rule(made[0].id)
    assert rules(wire) == [NODE_PORTS]
    assert wire.count["RevokeSecurityGroupIngress"] == 1
    with pytest.raises(NotFound):
        firewall.delete_security_group_rule("no rule")
    firewall.delete_security_group_rule(made[1].id.replace(GROUP, "gone"))


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_lost_reply_doubles_no_rule(wire: NifcloudWire, done: bool) -> None:
    wire.lose("AuthorizeSecurityGroupIngress", done=done)
    wire.cloud().firewall.create_security_group_rules([API])
    assert rules(wire) == [API]


def test_many_at_once_change_a_group_one_after_the_other(wire: NifcloudWire) -> None:
    firewall = wire.cloud().firewall
    wanted = [replace(API, port_min=port, port_max=port) for port in range(1000, 1006)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(firewall.create_security_group_rules, [[rule] for rule in wanted]))
    assert {rule.port_min for rule in rules(wire)} == set(range(1000, 1006))
    assert wire.count["AuthorizeSecurityGroupIngress"] == 6, "none was refused as busy"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (replace(API, remote_cidr=None, remote_group_id=GROUP), "names its own group"),
        (replace(API, ethertype="IPv6", remote_cidr="::/0"), "IPv6"),
        (replace(API, protocol="sctp"), "sctp"),
    ],
)
def test_what_no_rule_says_is_refused(wire: NifcloudWire, rule: SecurityGroupRule, words: str) -> None:
    with pytest.raises(Terminal, match=words):
        wire.cloud().firewall.create_security_group_rules([rule])
    assert wire.count["AuthorizeSecurityGroupIngress"] == 0


def test_a_group_takes_a_hundred_rules(wire: NifcloudWire) -> None:
    wanted = [replace(API, port_min=port, port_max=port) for port in range(1, 102)]
    with pytest.raises(QuotaExceeded, match="100 rules"):
        wire.cloud().firewall.create_security_group_rules(wanted)


# ---- addresses


MINE = Mark(UID, "demo-bastion")


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_lost_reply_strands_no_address(wire: NifcloudWire, done: bool) -> None:
    note, addresses = AddressNotes(), wire.cloud().elastic_addresses
    wire.account.addresses["203.0.113.9"] = {"PublicIp": "203.0.113.9", "AvailabilityZone": "east-11"}
    wire.lose("AllocateAddress", done=done)
    if done:
        addresses.allocate(MINE, zone="east-11", note=note)
    else:
        with pytest.raises(LostReply):
            addresses.allocate(MINE, zone="east-11", note=note)
        assert note.before() == {"203.0.113.9"}
        addresses.allocate(MINE, zone="east-11", note=note)
    assert len([one for one in addresses.all() if one.mark == MINE]) == 1
    assert len(wire.account.addresses) == 2
    assert note.before() is None


def test_a_run_that_died_between_its_two_calls_is_carried_on(wire: NifcloudWire) -> None:
    note = AddressNotes()
    wire.refuse("NiftyModifyAddressAttribute", "Client.Something.Else")
    with pytest.raises(Terminal):
        wire.cloud().elastic_addresses.allocate(MINE, zone="east-11", note=note)
    found = wire.cloud().elastic_addresses.allocate(MINE, zone="east-11", note=note)
    assert (len(wire.account.addresses), wire.count["AllocateAddress"]) == (1, 1)
    assert wire.cloud().elastic_addresses.allocate(MINE, zone="east-11", note=note).address == found.address


def test_of_two_new_addresses_none_is_guessed_to_be_ours(wire: NifcloudWire) -> None:
    note = AddressNotes()
    note.write([])
    for address in ("203.0.113.1", "203.0.113.2"):
        wire.account.addresses[address] = {"PublicIp": address, "AvailabilityZone": "east-11"}
    with pytest.raises(Conflict, match=r"203\.0\.113\.1, 203\.0\.113\.2"):
        wire.cloud().elastic_addresses.allocate(MINE, zone="east-11", note=note)
    assert wire.count["AllocateAddress"] == 0


def test_only_a_clusters_own_address_is_released(wire: NifcloudWire) -> None:
    addresses = wire.cloud().elastic_addresses
    made = addresses.allocate(MINE, zone="east-11", note=AddressNotes())
    with pytest.raises(Conflict, match="not this cluster's"):
        addresses.release(made.address, uid="abcdef0123")
    addresses.release(made.address, uid=UID)
    addresses.release(made.address, uid=UID)
    assert wire.account.addresses == {}

"""Security groups, their rules, and tags after the fact."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moyai.cloud.capabilities import Capability, CapabilityAbsent
from moyai.cloud.model import SecurityGroupRule
from moyai.core.errors import Terminal
from moyai.core.keys import Kind
from tests.contract.site import Site


class Firewall:
    def test_what_a_crash_left_untagged_is_adopted(self, site: Site) -> None:
        cloud = site.cloud
        if Capability.TAGS not in cloud.capabilities():
            with pytest.raises(CapabilityAbsent):
                cloud.tags.add_tags(Kind.SECURITY_GROUP, site.group.id, tags=["other=1"])
            return
        group = cloud.firewall.create_security_group(name=f"{site.uid}-untagged", tags=[])
        try:
            assert group.tags == ()
            cloud.tags.add_tags(Kind.SECURITY_GROUP, group.id, tags=[site.tag, "other=1"])
            found = next(one for one in cloud.firewall.security_groups(tag=site.tag) if one.id == group.id)
            assert found.tags == tuple(sorted([site.tag, "other=1"]))
            cloud.tags.add_tags(Kind.SECURITY_GROUP, group.id, tags=["third=1"])
            assert len(next(one for one in cloud.firewall.security_groups(tag=site.tag) if one.id == group.id).tags) == 3
        finally:
            cloud.firewall.delete_security_group(group.id)

    def test_one_call_takes_rules_of_one_group_only(self, site: Site) -> None:
        cloud = site.cloud
        other = cloud.firewall.create_security_group(name=f"{site.uid}-other", tags=[site.tag])
        try:
            with pytest.raises(Terminal, match="one security profile"):
                cloud.firewall.create_security_group_rules(
                    [SecurityGroupRule(group, protocol="tcp", port_min=1, port_max=1) for group in (site.group.id, other.id)]
                )
            rules = cloud.firewall.security_group_rules([site.group.id, other.id])
            assert not [rule for rule in rules if rule.direction == "ingress"]
        finally:
            cloud.firewall.delete_security_group(other.id)

    def test_rules_come_in_one_call_and_twice_is_once(self, site: Site) -> None:
        cloud = site.cloud
        wanted = [
            SecurityGroupRule(
                site.group.id, protocol="tcp", port_min=port, port_max=port, remote_cidr="10.0.0.0/8", description="d"
            )
            for port in range(30000, 30010)
        ]
        wanted += [
            SecurityGroupRule(site.group.id, remote_group_id=site.group.id),
            SecurityGroupRule(site.group.id, protocol="icmp"),
        ]
        first = cloud.firewall.create_security_group_rules(wanted[:5])
        both = cloud.firewall.create_security_group_rules(wanted)
        assert len(both) == len(wanted)
        assert {rule.id for rule in first} <= {rule.id for rule in both}
        again = cloud.firewall.create_security_group_rules(
            [replace(rule, remote_cidr=rule.remote_cidr or "0.0.0.0/0") for rule in wanted[11:]]
        )
        assert [rule.id for rule in again] == [rule.id for rule in both if rule.protocol == "icmp"]
        ingress = [rule for rule in cloud.firewall.security_group_rules([site.group.id]) if rule.direction == "ingress"]
        assert len(ingress) == len(wanted)
        for rule in both:
            cloud.firewall.delete_security_group_rule(rule.id)
        assert not [rule for rule in cloud.firewall.security_group_rules([site.group.id]) if rule.direction == "ingress"]

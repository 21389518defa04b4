"""What holds on every cloud, whatever capabilities it lacks. A runner derives its classes and provides the fixture ``bare``.

The names are short, the metadata is the cluster's own, and disks have the smallest size that the cloud has: so a cloud with
narrow limits passes as well.
"""

from __future__ import annotations

import pytest

from moyai.cloud.capabilities import Capability, CapabilityAbsent
from moyai.cloud.model import Activity, DiskState, Power, SecurityGroupRule
from moyai.core.errors import Conflict, NotFound, Terminal
from moyai.core.ids import cluster_tag, new_uid
from tests.contract.bare_site import CIDR, BareSite
from tests.contract.suite.absences import NOBODY, PARTS, silent_calls


class BareMachines:
    def test_a_server_is_made_read_stopped_started_and_deleted(self, bare: BareSite) -> None:
        machines, zone = bare.cloud.machines, bare.cloud.machines.zones()[-1]
        server = bare.server("web", zone=zone)
        assert (server.name, server.tags, dict(server.metadata)) == ("site-web", (bare.tag,), bare.own)
        assert (server.zone, server.power, server.fault) == (zone, Power.RUNNING, "")
        assert server.evidence.activity is Activity.RUNNING
        assert [one.id for one in machines.servers(tag=bare.tag)] == [server.id]
        assert machines.servers(tag=cluster_tag(new_uid())) == []
        assert machines.settled_servers(tag=bare.tag) == {"site-web"}
        assert machines.server_id(machines.provider_id(server.id, server.zone)) == server.id
        machines.stop_server(server.id)
        bare.until(lambda: machines.server(server.id).power is Power.OFF)
        assert machines.server(server.id).evidence.activity is Activity.OFF
        machines.stop_server(server.id)
        machines.start_server(server.id)
        bare.until(lambda: machines.server(server.id).power is Power.RUNNING)
        machines.reboot_server(server.id)
        bare.until(lambda: machines.server(server.id).power is Power.RUNNING)
        bare.remove(server)
        machines.delete_server(server.id)
        with pytest.raises(NotFound):
            machines.server(server.id)

    def test_a_server_that_is_not_there(self, bare: BareSite) -> None:
        machines = bare.cloud.machines
        for call in (machines.server, machines.stop_server, machines.start_server, machines.reboot_server):
            with pytest.raises(NotFound):
                call(NOBODY)
        machines.delete_server(NOBODY)
        machines.detach_volume(NOBODY, NOBODY)
        assert machines.server_id("another-cloud:///zone/machine") is None
        assert machines.server_id("") is None

    def test_key_pairs(self, bare: BareSite) -> None:
        machines, name = bare.cloud.machines, f"site-{new_uid()}"
        machines.create_keypair(name, bare.runner.public_key)
        try:
            assert name in machines.keypairs()
            with pytest.raises(Conflict):
                machines.create_keypair(name, bare.runner.public_key)
        finally:
            machines.delete_keypair(name)
        machines.delete_keypair(name)
        assert name not in machines.keypairs()

    def test_flavors_have_sizes_and_names_of_their_own(self, bare: BareSite) -> None:
        flavors = bare.cloud.machines.flavors()
        assert all(one.id and one.vcpus >= 1 and one.memory_mb >= 1 for one in flavors)
        assert len({one.id for one in flavors}) == len(flavors)


class BareNetworks:
    def test_all_show_their_owner_and_the_names_that_were_asked_for(self, bare: BareSite) -> None:
        cloud = bare.cloud
        assert [(one.id, one.name) for one in cloud.networks.networks(tag=bare.tag)] == [(bare.network.id, "site-network")]
        assert [(one.id, one.cidr) for one in cloud.networks.subnets(network_id=bare.network.id)] == [(bare.subnet.id, CIDR)]
        assert [(one.id, one.name) for one in cloud.firewall.security_groups(tag=bare.tag)] == [(bare.group.id, "site-group")]
        assert cloud.networks.networks(tag=cluster_tag(new_uid())) == []
        assert bare.network.id not in {one.id for one in cloud.networks.networks(external=True)}

    def test_a_servers_card_is_a_port_of_its_name(self, bare: BareSite) -> None:
        server = bare.server("card")
        networks = bare.cloud.networks
        (port,) = networks.ports(device_ids=[server.id])
        assert (port.name, port.network_id, port.device_id) == ("site-card", bare.network.id, server.id)
        assert (port.security_group_ids, port.tags) == ((bare.group.id,), (bare.tag,))
        assert [one.id for one in networks.ports(ids=[port.id, NOBODY])] == [port.id]
        assert networks.ports(ids=[]) == []
        with pytest.raises(Conflict):
            bare.cloud.firewall.delete_security_group(bare.group.id)
        with pytest.raises(Conflict):
            networks.delete_network(bare.network.id)
        bare.remove(server)

    def test_what_is_not_there_is_deleted_already(self, bare: BareSite) -> None:
        bare.cloud.networks.delete_port(NOBODY)
        bare.cloud.networks.delete_subnet(NOBODY)
        bare.cloud.networks.delete_network(NOBODY)
        bare.cloud.firewall.delete_security_group(NOBODY)


class BareFirewall:
    def test_rules_come_in_one_call_and_twice_is_once(self, bare: BareSite) -> None:
        firewall = bare.cloud.firewall

        def inbound() -> set[tuple[str | None, int | None, int | None, str | None]]:
            rules = [one for one in firewall.security_group_rules([bare.group.id]) if one.direction == "ingress"]
            return {(one.protocol, one.port_min, one.port_max, one.remote_cidr) for one in rules}

        wanted = [
            SecurityGroupRule(bare.group.id, protocol="tcp", port_min=30000, port_max=32767),
            SecurityGroupRule(bare.group.id, protocol="udp", port_min=8472, port_max=8472, remote_cidr="10.78.0.0/24"),
            SecurityGroupRule(bare.group.id, protocol="icmp", remote_cidr="10.78.0.0/24"),
        ]
        first = firewall.create_security_group_rules(wanted[:1])
        both = firewall.create_security_group_rules(wanted)
        assert {one.id for one in first} < {one.id for one in both}
        assert inbound() == {
            ("tcp", 30000, 32767, None),
            ("udp", 8472, 8472, "10.78.0.0/24"),
            ("icmp", None, None, "10.78.0.0/24"),
        }
        for rule in both:
            firewall.delete_security_group_rule(rule.id)
        assert inbound() == set()

    def test_one_call_takes_rules_of_one_group_only(self, bare: BareSite) -> None:
        rules = [SecurityGroupRule(group, protocol="tcp", port_min=1, port_max=1) for group in (bare.group.id, NOBODY)]
        with pytest.raises(Terminal):
            bare.cloud.firewall.create_security_group_rules(rules)
        with pytest.raises(NotFound):
            bare.cloud.firewall.create_security_group_rules(rules[1:])


class BareDisks:
    def test_a_disk_is_made_found_attached_grown_and_deleted(self, bare: BareSite) -> None:
        machines, disks, step = bare.cloud.machines, bare.cloud.disks, bare.runner.step_gb
        server, name = bare.server("disk"), f"pvc-{bare.uid}"
        made = disks.create_volume(name=name, size_gb=step, zone=server.zone, metadata=bare.own)
        bare.until(lambda: disks.volume(made.id).state is DiskState.AVAILABLE)
        seen = disks.volume(made.id)
        assert (seen.name, seen.size_gb, seen.zone, dict(seen.metadata)) == (name, step, server.zone, bare.own)
        assert [one.id for one in disks.volumes(metadata=bare.own)] == [made.id]
        assert [one.id for one in disks.volumes(name=name)] == [made.id]
        assert disks.volumes(metadata=bare.own, name="other") == []
        with pytest.raises(NotFound):
            machines.attach_volume(NOBODY, made.id)
        with pytest.raises(NotFound):
            machines.attach_volume(server.id, NOBODY)
        machines.attach_volume(server.id, made.id)
        bare.until(lambda: disks.volume(made.id).state is DiskState.IN_USE)
        found = disks.volume(made.id)
        assert found.attached_server_ids == (server.id,)
        assert machines.server(server.id).volume_ids == (made.id,)
        for call in (lambda: machines.attach_volume(server.id, made.id), lambda: disks.delete_volume(made.id)):
            with pytest.raises(Terminal):
                call()
        with pytest.raises(Conflict):
            disks.forget_attachment(found.attachments[0].id)
        disks.extend_volume(made.id, 2 * step)
        bare.until(lambda: disks.volume(made.id).size_gb == 2 * step and disks.volume(made.id).state is DiskState.IN_USE)
        machines.detach_volume(server.id, made.id)
        bare.until(lambda: disks.volume(made.id).state is DiskState.AVAILABLE)
        machines.detach_volume(server.id, made.id)
        disks.delete_volume(made.id)
        bare.until(lambda: disks.volumes(metadata=bare.own) == [])
        disks.delete_volume(made.id)
        bare.remove(server)

    def test_what_is_not_there(self, bare: BareSite) -> None:
        disks = bare.cloud.disks
        with pytest.raises(NotFound):
            disks.volume(NOBODY)
        with pytest.raises(NotFound):
            disks.snapshot(NOBODY)
        disks.delete_volume(NOBODY)
        disks.delete_snapshot(NOBODY)
        disks.forget_attachment(NOBODY)
        with pytest.raises(NotFound):
            disks.create_volume(name="none", size_gb=1, metadata=bare.own, type_name="no-such-type")


class BareEntrances:
    def test_an_entrance_leads_to_machines_and_nobody_else_has_it(self, bare: BareSite) -> None:
        entrances, tags = bare.cloud.entrances, [bare.tag]
        if Capability.ENTRANCES not in bare.cloud.capabilities():
            with pytest.raises(CapabilityAbsent):
                entrances.entrance(name="site-door", tags=tags)
            return
        assert entrances.entrance(name="site-door", tags=tags) is None
        made = entrances.create_entrance(name="site-door", port=6443, tags=tags)
        try:
            assert (made.name, made.port, made.server_ids, made.tags) == ("site-door", 6443, frozenset(), (bare.tag,))
            assert made.address
            assert entrances.create_entrance(name="site-door", port=6443, tags=tags) == made
            server = bare.server("door")
            entrances.lead_to(made.id, [server.id, NOBODY])
            found = entrances.entrance(name="site-door", tags=tags)
            assert found is not None
            assert (found.address, found.server_ids) == (made.address, {server.id})
            entrances.lead_to(made.id, [])
            bare.remove(server)
            assert entrances.entrance(name="site-door", tags=[cluster_tag(new_uid())]) is None
        finally:
            entrances.delete_entrance(made.id)
        entrances.delete_entrance(made.id)
        assert entrances.entrance(name="site-door", tags=tags) is None
        with pytest.raises(NotFound):
            entrances.lead_to(made.id, [])


class BareCloud:
    def test_every_call_of_an_absent_capability_names_it(self, bare: BareSite) -> None:
        for capability in set(PARTS) - bare.cloud.capabilities():
            assert silent_calls(bare.cloud, capability) == []

    def test_it_says_where_it_is_and_what_it_has(self, bare: BareSite) -> None:
        cloud = bare.cloud
        assert cloud.account.project_id()
        assert cloud.account.region()
        assert (cloud.account.login_url() or "http").startswith("http")
        assert cloud.survey.services()
        assert cloud.survey.login().method
        assert cloud.machines.zones()
        assert cloud.disks.zones()
        assert all(one.id and one.name for one in (*cloud.disks.types(), *cloud.images.images()))
        assert cloud.kind.volume_names.driver

"""Servers and key pairs."""

from __future__ import annotations

from uuid import uuid4

import pytest

from moyai.cloud.capabilities import Capability, CapabilityAbsent
from moyai.cloud.model import Power, Server
from moyai.core.errors import Conflict, MoyaiError
from moyai.core.ids import new_uid
from tests.contract.site import Site


def create(site: Site, name: str, *, port_id: str, user_data: str) -> Server:
    """Ask for a server of the smallest flavor in the last zone; it is still starting."""
    compute = site.cloud.machines
    image = next((one for one in site.cloud.images.images() if one.properties.get("moyai_format")), None)
    assert image, "the cloud has no node image"
    return compute.create_server(
        name=f"{site.uid}-{name}",
        image_id=image.id,
        flavor_id=next(one.id for one in compute.flavors() if one.name == "m1.tiny"),
        port_ids=[port_id],
        user_data=user_data,
        zone=compute.zones()[-1],
        metadata={"moyai.role": "worker", "secret": "x"},
        tags=[site.tag],
    )


class Machines:
    def test_key_pairs(self, site: Site) -> None:
        cloud = site.cloud
        name = f"test-{new_uid()}"
        key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl test"
        cloud.machines.create_keypair(name, key)
        try:
            assert name in cloud.machines.keypairs()
            with pytest.raises(Conflict):
                cloud.machines.create_keypair(name, key)
        finally:
            cloud.machines.delete_keypair(name)
        cloud.machines.delete_keypair(name)
        assert name not in cloud.machines.keypairs()

    def test_groups_keep_servers_apart(self, site: Site) -> None:
        machines, name = site.cloud.machines, f"test-{new_uid()}"
        if Capability.SPREAD not in site.cloud.capabilities():
            with pytest.raises(CapabilityAbsent):
                machines.create_spread_group(name, strict=False)
            return
        made = machines.create_spread_group(name, strict=False)
        try:
            assert [one for one in machines.spread_groups() if one.name == name] == [made]
            assert not made.strict
        finally:
            machines.delete_spread_group(made.id)
        machines.delete_spread_group(made.id)
        assert name not in [one.name for one in machines.spread_groups()]

    def test_a_node_names_its_server_and_no_other_clouds(self, site: Site) -> None:
        compute, server_id = site.cloud.machines, str(uuid4())
        assert compute.server_id(compute.provider_id(server_id)) == server_id
        assert compute.server_id("another-cloud:///zone/machine") is None
        assert compute.server_id("") is None

    def test_a_server_that_cannot_be_placed_says_why(self, site: Site) -> None:
        compute = site.cloud.machines
        image = next(iter(site.cloud.images.images()), None)
        assert image, "the cloud has no image"
        port = site.port("server")
        flavor = max(compute.flavors(), key=lambda one: one.memory_mb)
        with pytest.raises(MoyaiError, match=r"(?i)zone"):
            compute.create_server(
                name=f"{site.uid}-nowhere",
                image_id=image.id,
                flavor_id=flavor.id,
                port_ids=[port.id],
                user_data="#cloud-config\n",
                zone="no-such-zone",
                metadata={},
                tags=[site.tag],
            )
        site.cloud.networks.delete_port(port.id)

    def test_a_server_is_made_read_stopped_started_and_deleted(self, site: Site) -> None:
        compute = site.cloud.machines
        port = site.port("server", "10.77.0.40")
        zone = compute.zones()[-1]
        script = "#cloud-config\nruncmd: [echo moyai-test-marker >/dev/console]\n"
        made = create(site, "server", port_id=port.id, user_data=script)
        site.until(lambda: compute.server(made.id).power is not Power.STARTING, 120)
        (server,) = compute.servers(tag=site.tag)
        assert (server.power, server.fault) == (Power.RUNNING, "")
        assert (server.zone, server.flavor_name, server.metadata["moyai.role"]) == (zone, "m1.tiny", "worker")
        assert [address.address for address in server.addresses] == ["10.77.0.40"]
        assert compute.settled_servers(tag=site.tag) == {server.name}
        assert compute.settled_servers(tag=f"{site.tag}-other") == frozenset()
        assert [one.id for one in site.cloud.networks.ports(device_ids=[server.id])] == [port.id]
        compute.delete_server_metadata(server.id, ["secret", "never-there"])
        assert dict(compute.server(server.id).metadata) == {"moyai.role": "worker"}
        site.until(lambda: bool(compute.console_log(server.id)), 30)
        compute.stop_server(server.id)
        site.until(lambda: compute.server(server.id).power is Power.OFF, 60)
        assert compute.settled_servers(tag=site.tag) == frozenset()
        compute.stop_server(server.id)
        compute.start_server(server.id)
        site.until(lambda: compute.server(server.id).power is Power.RUNNING, 60)
        compute.resume_server(server.id)
        compute.reboot_server(server.id)
        assert compute.server(server.id).power is Power.STARTING
        site.until(lambda: compute.server(server.id).power is Power.RUNNING, 120)
        compute.delete_server(server.id)
        site.until(lambda: not compute.servers(tag=site.tag), 60)
        compute.delete_server(server.id)
        site.cloud.networks.delete_port(port.id)

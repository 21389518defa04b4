"""A volume on a server, as the cloud and as the machine itself see it."""

from __future__ import annotations

import pytest

from moyai.cloud.model import DiskState, Instance, Power
from moyai.core.errors import Conflict, NotFound, Terminal
from tests.contract.site import Site
from tests.contract.suite.disks import NOBODY, gone, volume
from tests.contract.suite.machines import create


class Attachments:
    def test_a_machine_knows_itself_and_sees_its_volume_while_it_is_attached(self, site: Site) -> None:
        compute, disks = site.cloud.machines, site.cloud.disks
        port = site.port("holder")
        # a volume reaches machines of its own zone
        disk = volume(site, "attached", zone=compute.zones()[-1])
        server = create(site, "holder", port_id=port.id, user_data=site.user_data)
        site.until(lambda: compute.server(server.id).power is not Power.STARTING, 120)
        server = compute.server(server.id)
        assert server.power is Power.RUNNING
        with pytest.raises(NotFound):
            compute.attach_volume(NOBODY, disk.id)
        with pytest.raises(NotFound):
            compute.attach_volume(server.id, NOBODY)

        machine = site.enter(server)
        site.until(lambda: machine.guest().instance() is not None, 240)
        assert machine.guest().instance() == Instance(server.id, server.zone)
        links = machine.guest().disk_links(disk.id)
        assert not machine.has(links)

        compute.attach_volume(server.id, disk.id)
        site.until(lambda: disks.volume(disk.id).state is DiskState.IN_USE, 120)
        found = disks.volume(disk.id)
        assert found.attached_server_ids == (server.id,)
        assert compute.server(server.id).volume_ids == (disk.id,)
        site.until(lambda: machine.has(links), 120)
        with pytest.raises(Terminal):
            compute.attach_volume(server.id, disk.id)
        with pytest.raises(Terminal):
            disks.delete_volume(disk.id)
        with pytest.raises(Conflict):
            disks.forget_attachment(found.attachments[0].id)

        compute.detach_volume(server.id, disk.id)
        site.until(lambda: disks.volume(disk.id).state is DiskState.AVAILABLE, 120)
        assert disks.volume(disk.id).attached_server_ids == ()
        assert compute.server(server.id).volume_ids == ()
        site.until(lambda: not machine.has(links), 120)
        compute.detach_volume(server.id, disk.id)
        compute.detach_volume(NOBODY, disk.id)

        compute.delete_server(server.id)
        site.until(lambda: not compute.servers(tag=site.tag), 60)
        site.cloud.networks.delete_port(port.id)
        disks.delete_volume(disk.id)
        site.until(lambda: gone(site, disk.id), 60)

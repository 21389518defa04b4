"""Floating IPs."""

from __future__ import annotations

from tests.contract.site import Site


class Addresses:
    def test_a_floating_ip_comes_moves_and_goes(self, site: Site) -> None:
        cloud = site.cloud
        port = site.port("floating")
        address = cloud.addresses.create_floating_ip(
            network_id=site.router.external_network_id, port_id=port.id, description="test", tags=[site.tag]
        )
        try:
            assert address.tags == (site.tag,)
            assert [one.id for one in cloud.addresses.floating_ips(port_ids=[port.id])] == [address.id]
            assert cloud.addresses.associate_floating_ip(address.id, None).port_id == ""
            assert [one.id for one in cloud.addresses.floating_ips(tag=site.tag)] == [address.id]
            assert cloud.addresses.associate_floating_ip(address.id, port.id).fixed_ip == port.fixed_ips[0]
            described = cloud.addresses.describe_floating_ip(address.id, "another's")
            assert (described.description, described.port_id) == ("another's", port.id)
        finally:
            cloud.addresses.delete_floating_ip(address.id)
            cloud.networks.delete_port(port.id)
        cloud.addresses.delete_floating_ip(address.id)

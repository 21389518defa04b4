"""Who one is, what there is, and application credentials."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from moyai.cloud.capabilities import Capability
from moyai.cloud.credentials import Credential, Use
from moyai.cloud.model import DiskState
from moyai.core.errors import Terminal
from moyai.core.ids import CLUSTER_TAG, new_uid
from tests.contract.site import Site


class Account:
    def test_the_adapter_is_what_the_others_were_promised(self, site: Site) -> None:
        assert site.cloud.account.project_id()
        assert site.cloud.account.region()
        assert site.cloud.capabilities() | {Capability.TAGS} == frozenset(Capability), "without others the site cannot be built"

    def test_catalog_flavors_zones_and_quotas_are_read(self, site: Site) -> None:
        cloud = site.cloud
        flavors = {flavor.name: flavor for flavor in cloud.machines.flavors()}
        assert flavors["m1.small"].memory_mb == 2048
        assert cloud.machines.zones()
        quotas = {quota.name: quota for quota in cloud.quotas.quotas()}
        assert {"cores", "ram", "instances", "port", "router", "network", "floatingip", "security_group_rule"} <= set(quotas)
        volumes = {quota.name: quota for quota in cloud.disks.quotas()}
        assert {"volumes", "gigabytes"} <= set(volumes)
        assert (cloud.account.login_url() or "").startswith("http")

    def test_an_application_credential_works_alone_and_is_limited(self, site: Site) -> None:
        cloud = site.cloud
        name = f"test-{new_uid()}"
        made = cloud.credentials.create_credential(name=name, use=Use.CONTROLLERS, description="test")
        assert made.notes == (), "the cloud limits credentials"
        try:
            assert cloud.credentials.credentials(name_prefix=name) == [Credential(made.id, name, limited=True)]
            limited = site.log_in(made.id, made.secret)
            assert limited.account.project_id() == cloud.account.project_id()
            assert limited.networks.networks(external=True)
            # an application credential may not make further ones
            with pytest.raises(Terminal):
                limited.credentials.create_credential(name=f"{name}-2", use=Use.VOLUMES, description="test")
        finally:
            cloud.credentials.delete_credential(made.id)
        with pytest.raises(Terminal):
            site.log_in(made.id, made.secret).networks.networks(external=True)

    @pytest.mark.parametrize("use", list(Use))
    def test_an_application_credential_reaches_its_own_part_of_the_cloud_alone(self, site: Site, use: Use) -> None:
        cloud = site.cloud
        made = cloud.credentials.create_credential(name=f"test-{new_uid()}", use=use, description="test")
        port = site.port("guarded")
        volume = cloud.disks.create_volume(name=f"{site.uid}-guarded", size_gb=1, metadata={CLUSTER_TAG: site.uid})
        try:
            limited = site.log_in(made.id, made.secret)
            controllers = use is Use.CONTROLLERS
            may: dict[str, Callable[[], object]] = {
                "read servers": limited.machines.servers,
                "read ports": lambda: limited.networks.ports(network_id=site.network.id),
                "read load balancers": limited.load_balancers.load_balancers,
                "read rules": lambda: limited.firewall.security_group_rules([site.group.id]),
                "read the router": lambda: limited.routers.router(site.router.id),
                "write a port": lambda: limited.networks.update_port(port.id, send_from=[]),
                "read volumes": limited.disks.volumes,
                "read one volume": lambda: limited.disks.volume(volume.id),
                "read snapshots": limited.disks.snapshots,
                "read volume types": limited.disks.types,
                "delete a port": lambda: limited.networks.delete_port(port.id),
                "delete the network": lambda: limited.networks.delete_network(site.network.id),
                "delete the router": lambda: limited.routers.delete_router(site.router.id),
                "delete the group": lambda: limited.firewall.delete_security_group(site.group.id),
                "delete a server": lambda: limited.machines.delete_server(new_uid()),
                "make a network": lambda: limited.networks.create_network(name=f"{site.uid}-other", tags=[site.tag]),
                "make a key pair": lambda: limited.machines.create_keypair(f"{site.uid}-other", "ssh-ed25519 AAAA"),
                "read images": limited.images.images,
                "delete an image": lambda: limited.images.delete_image(new_uid()),
            }
            done = {name for name, call in may.items() if _allowed(call)}
            volumes = {"read volumes", "read one volume", "read snapshots", "read volume types"}
            assert done - {"read ports"} == (
                {"read servers", "read load balancers", "read rules", "read the router", "write a port"}
                if controllers
                else {"read servers", *volumes}
            )
        finally:
            cloud.credentials.delete_credential(made.id)
            cloud.networks.delete_port(port.id)
            site.until(lambda: cloud.disks.volume(volume.id).state is DiskState.AVAILABLE, 60)
            cloud.disks.delete_volume(volume.id)


def _allowed(call: Callable[[], object]) -> bool:
    try:
        call()
    except Terminal:
        return False
    return True

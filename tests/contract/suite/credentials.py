"""Credentials of the parts inside a cluster: each does the work of its part, and no other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from moyai.cloud.credentials import Credential, Use
from moyai.cloud.load_balancers import BalancerState, Member
from moyai.cloud.model import DiskState, Route, SecurityGroupRule
from moyai.core.errors import Terminal
from moyai.core.ids import CLUSTER_TAG, new_uid
from tests.contract.site import Site
from tests.contract.suite.load_balancers import tree


class Credentials:
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
            # an application credential may not make further ones, and one of a single part cannot serve the others
            own = limited.credentials.own_login()
            assert (own.may_issue, own.given) == (False, "")
            assert "application credential" in own.refusal
            assert cloud.credentials.own_login().may_issue
            found = limited.credentials.own_credential()
            assert (found.id, found.secret) == (made.id, made.secret)
            with pytest.raises(Terminal):
                cloud.credentials.own_credential()
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
            site.until(lambda: volume.id not in {one.id for one in cloud.disks.volumes()}, 60)

    def test_a_limited_credential_does_the_work_of_the_cloud_controller_manager(self, site: Site) -> None:
        cloud = site.cloud
        made = cloud.credentials.create_credential(name=f"test-{new_uid()}", use=Use.CONTROLLERS, description="test")
        try:
            limited = site.log_in(made.id, made.secret)
            balancers = limited.load_balancers
            balancer = balancers.create(tree(site))
            site.until(lambda: balancers.head(balancer.id).state is not BalancerState.BUSY, 120)
            found = balancers.get(balancer.id)
            assert found.state is BalancerState.ACTIVE
            pool = found.listeners[0].pool
            assert pool
            balancers.set_members(pool.id, [Member("10.77.0.13", 30080, site.subnet.id, name="m13")])
            site.until(lambda: balancers.head(balancer.id).state is not BalancerState.BUSY, 120)
            external = limited.networks.networks(external=True)[0]
            address = limited.addresses.create_floating_ip(
                network_id=external.id, port_id=balancer.vip_port_id, description="test", tags=[site.tag]
            )
            limited.addresses.delete_floating_ip(address.id)
            balancers.delete(balancer.id)
            site.until(lambda: not balancers.load_balancers(tag=site.tag), 120)
            rule = SecurityGroupRule(site.group.id, protocol="tcp", port_min=81, port_max=81)
            (rule,) = limited.firewall.create_security_group_rules([rule])
            limited.firewall.delete_security_group_rule(rule.id)
            route = Route("10.246.0.0/24", "10.77.0.30")
            assert route in limited.pod_routing.add_routes(site.router.id, [route]).routes
            assert route not in limited.pod_routing.remove_routes(site.router.id, [route]).routes
        finally:
            cloud.credentials.delete_credential(made.id)

    def test_a_limited_credential_does_the_work_of_the_csi_driver(self, site: Site) -> None:
        cloud = site.cloud
        made = cloud.credentials.create_credential(name=f"test-{new_uid()}", use=Use.VOLUMES, description="test")
        try:
            disks = site.log_in(made.id, made.secret).disks
            assert disks.types()
            assert disks.zones()
            assert disks.quotas()
            own = {CLUSTER_TAG: site.uid}
            volume = disks.create_volume(name=f"{site.uid}-limited", size_gb=1, metadata=own)
            site.until(lambda: disks.volume(volume.id).state is DiskState.AVAILABLE, 60)
            disks.extend_volume(volume.id, 2)
            site.until(lambda: disks.volume(volume.id).state is DiskState.AVAILABLE, 60)
            assert disks.volume(volume.id).size_gb == 2
            snapshot = disks.create_snapshot(name=f"{site.uid}-limited", volume_id=volume.id, metadata=own)
            site.until(lambda: disks.snapshot(snapshot.id).state is DiskState.AVAILABLE, 60)
            assert disks.faults(volume.id) == []
            disks.delete_snapshot(snapshot.id)
            site.until(lambda: not disks.snapshots(volume_id=volume.id), 60)
            disks.delete_volume(volume.id)
            site.until(lambda: volume.id not in {one.id for one in disks.volumes(metadata=own)}, 60)
        finally:
            cloud.credentials.delete_credential(made.id)


def _allowed(call: Callable[[], object]) -> bool:
    try:
        call()
    except Terminal:
        return False
    return True

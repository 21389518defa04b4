"""The account: project, region, quotas."""

from __future__ import annotations

from moyai.cloud.capabilities import ALTERNATIVES, Capability
from tests.contract.site import Site


class Account:
    def test_the_adapter_is_what_the_others_were_promised(self, site: Site) -> None:
        assert site.cloud.account.project_id()
        assert site.cloud.account.region()
        assert site.cloud.capabilities() | {Capability.TAGS} | ALTERNATIVES == frozenset(Capability), (
            "without others the site cannot be built"
        )

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

    def test_the_way_to_the_cloud_and_its_mirror_are_read(self, site: Site) -> None:
        account = site.cloud.account
        assert not account.reach().insecure, "a cloud without certificates, or with one that is checked"
        mirror = account.image_mirror()
        assert mirror is None or mirror.startswith("http")

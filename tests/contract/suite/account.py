"""Who one is, what there is, and application credentials."""

from __future__ import annotations

import pytest

from moyai.cloud.capabilities import Capability
from moyai.core.errors import Terminal
from moyai.core.ids import new_uid
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
        credential_id, secret = cloud.credentials.create_credential(name=name, roles=["member"], description="test")
        try:
            assert cloud.credentials.credentials(name_prefix=name) == {name: credential_id}
            limited = site.log_in(credential_id, secret)
            assert limited.account.project_id() == cloud.account.project_id()
            assert limited.networks.networks(external=True)
            # an application credential may not make further ones
            with pytest.raises(Terminal, match="policy"):
                limited.credentials.create_credential(name=f"{name}-2", roles=["member"], description="test")
        finally:
            cloud.credentials.delete_credential(credential_id)
        with pytest.raises(Terminal):
            site.log_in(credential_id, secret).machines.flavors()

"""Who one is, what there is, and application credentials."""

from __future__ import annotations

IMPORTS


class Account:
    def test_the_adapter_is_what_the_others_were_promised(self, site: Site) -> None:
        promised: Cloud = cloud
        assert promised.account.project_id()
        assert promised.account.region()
        assert promised.capabilities() == frozenset(Capability)

    def test_catalog_flavors_zones_and_quotas_are_read(self, site: Site) -> None:
        flavors = {flavor.name: flavor for flavor in cloud.machines.flavors()}
        assert flavors["m1.small"].memory_mb == 2048
        assert cloud.machines.zones()
        quotas = {quota.name: quota for quota in cloud.quotas.quotas()}
        assert {"cores", "ram", "instances", "port", "router", "network", "floatingip", "security_group_rule"} <= set(quotas)
        volumes = {quota.name: quota for quota in cloud.disks.quotas()}
        assert {"volumes", "gigabytes"} <= set(volumes)
        assert (cloud.account.login_url() or "").startswith("http")
        assert cloud.session.catalog_url("no-such-service") is None

    def test_an_application_credential_works_alone_and_is_limited(self, site: Site) -> None:
        name = f"test-{new_uid()}"
        credential_id, secret = cloud.credentials.create_credential(name=name, roles=["member"], description="test")
        try:
            assert cloud.credentials.credentials(name_prefix=name) == {name: credential_id}
            auth_url = cloud.account.login_url()
            assert auth_url
            limited = connect(credential=ApplicationCredential(auth_url, credential_id, secret, cloud.account.region()))
            assert limited.account.project_id() == cloud.account.project_id()
            assert limited.networks.networks(external=True)
            # an application credential may not make further ones
            with pytest.raises(Terminal, match="policy"):
                limited.credentials.create_credential(name=f"{name}-2", roles=["member"], description="test")
        finally:
            cloud.credentials.delete_credential(credential_id)
        with pytest.raises(Terminal):
            connect(credential=ApplicationCredential(auth_url, credential_id, secret)).machines.flavors()

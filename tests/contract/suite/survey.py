"""What a cloud says about itself to a user who has built nothing yet."""

from __future__ import annotations

from moyai.cloud.capabilities import Capability
from moyai.cloud.credentials import Use
from moyai.cloud.survey import Feature
from tests.contract.site import Site


class Survey:
    def test_the_cloud_says_who_is_logged_in_and_which_services_answer(self, site: Site) -> None:
        survey = site.cloud.survey
        login = survey.login()
        assert login.method == "password"
        assert login.user
        assert login.project
        assert login.ends is None, "a password is asked for again when a token ends"
        services = survey.services()
        assert services
        assert [one for one in services if one.fault or not one.versions or not one.address] == []

    def test_a_credential_is_known_as_such(self, site: Site) -> None:
        made = site.cloud.credentials.create_credential(name=f"{site.uid}-login", use=Use.CONTROLLERS, description="test")
        try:
            login = site.log_in(made.id, made.secret).survey.login()
            assert login.method == f"restricted application credential {site.uid}-login"
        finally:
            site.cloud.credentials.delete_credential(made.id)

    def test_networks_clock_and_addresses(self, site: Site) -> None:
        cloud = site.cloud
        assert cloud.survey.features() >= {Feature.SOURCE_ADDRESSES, Feature.SINGLE_ROUTES}
        assert abs(cloud.survey.clock_ahead() or 99) < 5 or cloud.survey.clock_ahead() == 0
        assert Capability.ROUTERS in cloud.capabilities()
        for network in cloud.networks.networks(external=True):
            free = cloud.survey.free_addresses(network.id)
            assert free is None or free > 0
        for shown in cloud.survey.certificates():
            assert shown.ends > site.clock.now()

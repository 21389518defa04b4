"""What holds on every cloud, over OpenStack's adapter on the local cloud or whichever ``MOYAI_TEST_CLOUD`` names."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from moyai.cloud.openstack import connect
from moyai.core.clock import SystemClock
from tests.contract import bare_suite
from tests.contract.bare_site import BareRunner, BareSite, building_bare
from tests.contract.machine_keys import rsa_line


@pytest.fixture(scope="module")
def runner(cloud_name: str) -> BareRunner:
    cloud = connect(cloud_name)
    return BareRunner(
        cloud,
        SystemClock(),
        image_id=next(one.id for one in cloud.images.images() if one.properties.get("moyai_format")),
        flavor_id=next(one.id for one in cloud.machines.flavors() if one.name == "m1.tiny"),
        user_data="#cloud-config\n",
        public_key=rsa_line(),
    )


@pytest.fixture
def bare(runner: BareRunner) -> Generator[BareSite]:
    with building_bare(runner) as made:
        yield made


class TestMachines(bare_suite.BareMachines):
    """On OpenStack."""


class TestNetworks(bare_suite.BareNetworks):
    """On OpenStack."""


class TestFirewall(bare_suite.BareFirewall):
    """On OpenStack."""


class TestDisks(bare_suite.BareDisks):
    """On OpenStack."""


class TestEntrances(bare_suite.BareEntrances):
    """On these clouds."""


class TestCloud(bare_suite.BareCloud):
    """On OpenStack."""

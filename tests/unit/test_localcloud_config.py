"""What a local cloud is: every wrong field is one clear line, everything else follows from the right ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moyai.core.errors import UsageError
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "Moyai"}, "cloud name 'Moyai'"),
        ({"name": ""}, "cloud name ''"),
        ({"name": "a" * 25}, "24 at most"),
        ({"name": "a/b"}, "cloud name"),
        ({"name": "nifcloud"}, "NIFCLOUD itself"),
        ({"management_cidr": "10.0.0.0/33"}, "management range"),
        ({"management_cidr": "ten"}, "management range 'ten'"),
        ({"management_cidr": "10.255.0.1/24"}, "has host bits set"),
        ({"external_cidr": "127.0.0.0/24"}, "not a loopback"),
        ({"external_cidr": "224.0.0.0/24"}, "multicast"),
        ({"external_cidr": "10.9.0.0/28"}, "between /16 and /26"),
        ({"external_cidr": "10.255.0.0/16"}, "overlap"),
        ({"zones": ()}, "0 zones"),
        ({"zones": ("az1", "az1")}, "given twice"),
        ({"zones": ("az1", "AZ 2")}, "zone 'AZ 2'"),
        ({"zones": ("nova",)}, "zone 'nova'"),
    ],
)
def test_wrong_fields_are_refused_in_one_line(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        LocalCloudConfig(**fields)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_addresses_follow_from_the_ranges() -> None:
    config = LocalCloudConfig(management_cidr="10.1.0.0/24", external_cidr="10.2.0.0/25")
    assert (config.address, config.host_address, config.external_gateway) == ("10.1.0.1", "10.1.0.254", "10.2.0.1")
    assert [(hv.host, hv.zone, hv.address, hv.netns) for hv in config.hypervisors] == [
        ("hv1", "az1", "10.1.0.1", ""),
        ("hv2", "az2", "10.1.0.2", "hv2"),
    ]


@pytest.mark.parametrize("name", ["moyai", "a", "a-long-name-of-a-cloud-1"])
def test_link_names_fit_the_kernel(name: str) -> None:
    assert len(LocalCloudConfig(name).link) <= 15


def test_long_names_with_the_same_start_have_links_of_their_own() -> None:
    assert LocalCloudConfig("development-one").link != LocalCloudConfig("development-two").link


def test_the_record_gives_back_the_same_configuration() -> None:
    config = LocalCloudConfig("x", "10.1.0.0/24", "10.2.0.0/24", ("a", "b", "c"), outbound=True)
    assert LocalCloudConfig.from_json(config.to_json()) == config


def test_a_folder_too_deep_for_sockets_is_refused() -> None:
    with pytest.raises(UsageError, match="too long for sockets"):
        CloudPaths(Path("/" + "d" * 100)).check()

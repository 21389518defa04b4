"""Profiles of the local cloud: what a file may say, and what becomes of it in the configuration of the services."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moyai.core.errors import UsageError
from moyai.localcloud import host, inside, profile, secrets
from moyai.localcloud.clouds_yaml import entries
from moyai.localcloud.env import OpenStackEnv
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig
from moyai.localcloud.services import files, services
from moyai.localcloud.services.rendering import ServiceContext
from tests.unit.test_localcloud_services import parsed


def config_of(*names: str) -> LocalCloudConfig:
    return LocalCloudConfig("test", "10.1.0.0/24", "10.2.0.0/24", ("east", "west"), profile=profile.load(names))


def context_of(*names: str) -> ServiceContext:
    env = OpenStackEnv(Path("/cache/openstack/key"), "key")
    return ServiceContext(config_of(*names), CloudPaths(Path("/state/test")), env, secrets.generate(), "moyai-test")


@pytest.mark.parametrize("name", profile.known())
def test_each_profile_is_one_and_its_cloud_is_found_again_in_its_record(name: str) -> None:
    config = config_of(name)
    assert LocalCloudConfig.from_json(config.to_json()) == config
    assert config.profile != profile.CloudProfile()
    assert files(context_of(name))


def test_the_record_of_a_cloud_without_a_profile_is_read() -> None:
    config = LocalCloudConfig()
    assert LocalCloudConfig.from_json(config.to_json()) == config
    old = '{"name": "old", "management_cidr": "10.1.0.0/24", "external_cidr": "10.2.0.0/24", "zones": ["a"], "outbound": false}'
    assert LocalCloudConfig.from_json(old).profile == profile.CloudProfile()


def test_policies_are_neutrons_own() -> None:
    texts = files(context_of("provider-network"))
    assert parsed(texts["neutron.conf"])["oslo_policy"]["policy_file"] == "/state/test/conf/neutron-policy.yaml"
    assert '"create_router": "rule:admin_only"\n' in texts["neutron-policy.yaml"]
    assert "oslo_policy" not in parsed(files(context_of("no-octavia"))["neutron.conf"])


def test_a_later_profile_lies_on_top_of_an_earlier_one() -> None:
    rule = "create_port:allowed_address_pairs"
    both = profile.load(["provider-network", "no-address-pairs"])
    assert both.policies["neutron"][rule] == "rule:admin_only"
    assert both.policies["neutron"]["create_router"] == "rule:admin_only"
    assert "shared" in profile.load(["no-address-pairs", "provider-network"]).policies["neutron"][rule]
    assert [one.name for one in both.networks] == ["corp"]


def test_a_provider_network_reaches_every_hypervisor_and_the_host() -> None:
    config, context = config_of("provider-network"), context_of("provider-network")
    links = inside.links(config)
    assert "link add os-br-x1 type bridge" in links
    assert "address add 10.238.0.1/24 dev os-br-x1" in links
    assert "link set hv2-wire-x1 master os-br-x1 up" in links
    assert "link set wire-x1 up" in inside.hypervisor_links(config, config.hypervisors[1])
    texts = files(context)
    assert parsed(texts["neutron.conf"])["ml2_type_flat"]["flat_networks"] == "public,corp"
    assert "link add hv1-wire-x1 type veth peer name wire-x1\n" in links
    for name, bridges in (("neutron-hv1.conf", "public:os-br-ex"), ("neutron-hv2.conf", "")):
        section = parsed(texts[name])["linux_bridge"]
        assert (section["bridge_mappings"], section["physical_interface_mappings"]) == (bridges, "corp:wire-x1")
    assert "iifname { os-br-ex, os-br-x1 } jump machines" in inside.filter_rules(config)
    assert "ip saddr { 10.2.0.0/24, 10.238.0.0/24 }" in host.outbound_rules(config)


def test_an_external_network_more_ends_where_the_routers_are() -> None:
    config, texts = config_of("two-external-networks"), files(context_of("two-external-networks"))
    assert "hv2-wire" not in inside.links(config)
    assert parsed(texts["neutron-hv1.conf"])["linux_bridge"]["bridge_mappings"] == "public:os-br-ex,partner:os-br-x1"
    assert parsed(texts["neutron-hv2.conf"])["linux_bridge"]["physical_interface_mappings"] == ""


def test_without_octavia_nothing_of_it_runs() -> None:
    context = context_of("no-octavia")
    names = {one.name for one in services(context)}
    assert not {"octavia-api", "moyai-lbd"} & names
    assert {"octavia-api", "moyai-lbd"} <= {one.name for one in services(context_of())}
    assert "octavia.conf" not in files(context)


def test_options_are_those_of_the_services_files() -> None:
    nova = parsed(files(context_of("soft-delete"))["nova.conf"])
    assert nova["DEFAULT"]["reclaim_instance_interval"] == "600"
    assert nova["DEFAULT"]["compute_driver"] == "moyai_nspawn.NspawnDriver"


def test_the_users_entry_logs_in_by_an_application_credential() -> None:
    values = secrets.generate()
    found = entries(config_of("restricted-credential"), values)
    assert found["test"]["auth_type"] == "v3applicationcredential"
    assert found["test"]["auth"]["application_credential_secret"] == values.credential
    assert values.demo not in str(found["test"])
    assert found["test-admin"]["auth"]["password"] == values.admin
    assert entries(config_of(), values)["test"]["auth"]["password"] == values.demo


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "polices = {}",
            "f.toml: polices: unknown field, should be one of summary, policies, options, without, networks, login",
        ),
        ("policies = 3", "f.toml: policies: '3', should be a mapping"),
        ("[policies.newton]\na = 'b'", "f.toml: policies: newton: unknown field, should be one of cinder, glance, keystone"),
        ("[policies.nova]\na = 3", "f.toml: policies: nova: a: '3', should be a text of one line"),
        ("without = ['nova']", "f.toml: without[0]: 'nova', should be octavia"),
        ("login = 'kerberos'", "f.toml: login: 'kerberos', should be password or application-credential"),
        ("networks = [{name = 'n', cidr = '10.0.0.0/24'}]", "should be a mapping with kind"),
        ("networks = [{name = 'public', cidr = '10.0.0.0/24', kind = 'provider'}]", "networks[0]: name: 'public', should be"),
        (
            "networks = [{name = 'n', cidr = '10.0.0.1/24', kind = 'provider'}]",
            "cidr: '10.0.0.1/24', should be an IPv4 network",
        ),
        ("networks = [{name = 'n', cidr = '10.0.0.0/30', kind = 'provider'}]", "should be a network of /16 to /26"),
        ("a = [", "should be TOML"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        profile.parse(text, source="f.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_profile_is_read_from_a_file_of_the_users(tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text('without = ["octavia"]\n')
    assert profile.load([str(file)]).without == ("octavia",)
    with pytest.raises(UsageError, match=r"--like ours: no such profile: one of .*no-octavia.*, or a file NAME.toml"):
        profile.load(["ours"])
    with pytest.raises(UsageError, match=r"nowhere\.toml"):
        profile.load(["nowhere.toml"])


def test_networks_of_a_profile_are_apart_from_the_others() -> None:
    made = profile.load(["provider-network"])
    with pytest.raises(UsageError, match=r"network corp 10.238.0.0/24 overlaps external 10.238.0.0/24"):
        replace(LocalCloudConfig(external_cidr="10.238.0.0/24"), profile=made)

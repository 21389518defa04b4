"""The services' configuration as text: nothing listens beyond the management address, no secret can be read by others."""

from __future__ import annotations

import configparser
import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from moyai.localcloud import inside, secrets
from moyai.localcloud.env import OpenStackEnv
from moyai.localcloud.layout import MAX_ROUTES, PORTS, REACHABLE_BY_MACHINES, CloudPaths, LocalCloudConfig
from moyai.localcloud.services import files, services
from moyai.localcloud.services.rendering import ServiceContext, ini
from moyai.localcloud.supervision import SupervisorPlan

CONFIG = LocalCloudConfig("test", "10.1.0.0/24", "10.2.0.0/24", ("east", "west", "south"))


@pytest.fixture
def context() -> ServiceContext:
    env = OpenStackEnv(Path("/cache/openstack/key"), "key")
    return ServiceContext(CONFIG, CloudPaths(Path("/state/test")), env, secrets.generate(), "moyai-test", Path("/bin/registry"))


def parsed(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def every_secret(values: secrets.CloudSecrets) -> list[str]:
    plain = [value for value in vars(values).values() if isinstance(value, str)]
    return [*plain, *values.services.values()]


def test_all_secrets_are_random_and_long(context: ServiceContext) -> None:
    drawn = every_secret(context.secrets)
    assert len(set(drawn)) == len(drawn) == 12
    assert all(len(value) == 32 for value in drawn)
    assert not set(drawn) & set(every_secret(secrets.generate()))


def test_secrets_of_a_cloud_that_an_older_moyai_made_are_read(tmp_path: Path) -> None:
    values = secrets.generate()
    (tmp_path / "secrets.json").write_text(json.dumps({**asdict(values), "erlang_cookie": "nobody reads it"}))
    assert secrets.load(tmp_path / "secrets.json") == values


def test_the_supervisor_reads_the_plan_as_it_was_written(context: ServiceContext, tmp_path: Path) -> None:
    plan = SupervisorPlan("10.255.0.1", tuple(services(context)), held=("mariadb",))
    (tmp_path / "services.json").write_text(plan.to_json())
    assert SupervisorPlan.load(tmp_path / "services.json") == plan


def test_no_secret_is_on_a_command_line_or_in_an_environment(context: ServiceContext) -> None:
    for service in services(context):
        seen = " ".join([*service.argv, *service.env.values()])
        assert not any(secret in seen for secret in every_secret(context.secrets)), service.name


def test_nothing_listens_beyond_the_management_address(context: ServiceContext) -> None:
    texts = files(context)
    assert not any(re.search(r"\b0\.0\.0\.0\b|(?<![\w:])::(?![\w:])", text) for text in texts.values())
    for name, option in (
        ("glance-api.conf", "bind_host"),
        ("nova.conf", "osapi_compute_listen"),
        ("nova.conf", "metadata_listen"),
        ("neutron.conf", "bind_host"),
        ("cinder.conf", "osapi_volume_listen"),
    ):
        assert parsed(texts[name])["DEFAULT"][option] == CONFIG.address, (name, option)
    assert "skip-networking" in texts["mariadb.cnf"]
    assert f"listeners.tcp.1 = {CONFIG.address}:5672" in texts["rabbitmq.conf"]
    for service in services(context):
        if "moyai.localcloud.launch_wsgi" in service.argv:
            assert CONFIG.address in service.argv


def test_every_api_demands_tokens(context: ServiceContext) -> None:
    texts = files(context)
    for name in ("nova.conf", "neutron.conf", "cinder.conf", "glance-api.conf", "octavia.conf", "placement/placement.conf"):
        section = parsed(texts[name])["keystone_authtoken"]
        assert section["auth_url"] == "http://10.1.0.1:5000/v3"
        assert section["service_token_roles_required"] == "true"


def test_the_load_balancer_provider_is_offered_under_octavias_names_too(context: ServiceContext) -> None:
    api = parsed(files(context)["octavia.conf"])["api_settings"]
    assert [one.split(":")[0] for one in api["enabled_provider_drivers"].split(",")] == ["moyai", "amphora", "octavia"]
    assert api["default_provider_driver"] == "moyai"


def test_what_is_waited_for_exists_and_leads_nowhere_in_a_circle(context: ServiceContext) -> None:
    plan = {service.name: service for service in services(context)}
    done: set[str] = set()
    while len(done) < len(plan):
        ready = {name for name, service in plan.items() if set(service.after) <= done} - done
        assert ready, f"never start: {set(plan) - done}"
        done |= ready


def test_every_zone_has_a_hypervisor_and_a_volume_backend(context: ServiceContext) -> None:
    names = [service.name for service in services(context)]
    cinder = parsed(files(context)["cinder.conf"])
    assert cinder["DEFAULT"]["enabled_backends"] == "east,west,south"
    for hypervisor in CONFIG.hypervisors:
        assert f"nova-compute-{hypervisor.host}" in names
        assert f"neutron-linuxbridge-{hypervisor.host}" in names
        assert cinder[hypervisor.zone]["backend_availability_zone"] == hypervisor.zone
        own = parsed(files(context)[f"nova-{hypervisor.host}.conf"])
        assert (own["DEFAULT"]["host"], own["DEFAULT"]["my_ip"]) == (hypervisor.host, hypervisor.address)
        assert own["moyai"]["cgroup"] == "moyai-test"


def test_machines_are_never_launched_where_the_control_groups_are_hidden(context: ServiceContext) -> None:
    for service in services(context):
        if service.name.startswith("nova-compute"):
            assert "netns" not in service.argv


def test_routes_are_limited_as_the_adapter_is_told(context: ServiceContext) -> None:
    assert parsed(files(context)["neutron.conf"])["DEFAULT"]["max_routes"] == str(MAX_ROUTES)


def test_without_the_program_there_is_no_registry(context: ServiceContext) -> None:
    without = ServiceContext(context.config, context.paths, context.env, context.secrets, context.cgroup)
    assert "registry" in {service.name for service in services(context)}
    assert "registry" not in {service.name for service in services(without)}


def test_ini_writes_what_oslo_config_reads() -> None:
    text = ini({"a": {"flag": True, "off": False, "many": ("x", "y"), "dollar": "p$w"}, "empty": {}})
    assert text == "[a]\nflag = true\noff = false\nmany = x,y\ndollar = p$$w\n"


#: Why a service may be reached from a machine, for every port of the cloud.
CLOSED_TO_MACHINES = {
    "nova-metadata": "the metadata agent asks it, on behalf of a machine that it knows",
    "registry": "whoever reaches it may write",
    "rabbitmq": "the message bus of the services",
}


def test_machines_reach_only_services_that_change_nothing_without_a_token(context: ServiceContext) -> None:
    assert set(REACHABLE_BY_MACHINES) | set(CLOSED_TO_MACHINES) == set(PORTS)
    assert not set(REACHABLE_BY_MACHINES) & set(CLOSED_TO_MACHINES)
    accepted = re.search(r"ip daddr 10\.1\.0\.1 tcp dport \{ ([0-9, ]+) \} accept\n    drop\n", inside.filter_rules(CONFIG))
    assert accepted
    assert {int(port) for port in accepted[1].split(",")} == {PORTS[name] for name in REACHABLE_BY_MACHINES}
    assert "readonly:\n      enabled: true" in files(context)["registry-readonly.yml"]


def test_who_asks_for_the_registry_from_a_machine_gets_the_one_that_cannot_be_written() -> None:
    rules = inside.filter_rules(CONFIG)
    assert "iifname { os-br-ex } ip daddr 10.1.0.1 tcp dport 5001 dnat ip to 10.1.0.1:5002" in rules
    assert "tcp dport 5001 iifname != lo ip saddr != 10.1.0.254 drop" in rules


def test_the_filter_replaces_itself_as_a_whole() -> None:
    assert inside.filter_rules(CONFIG).startswith("add table inet moyai\ndelete table inet moyai\ntable inet moyai {\n")


def test_the_message_bus_is_closed_to_machines_and_the_host_to_both() -> None:
    rules = inside.filter_rules(CONFIG)
    assert "iifname { os-br-ex } oifname os-br-mgmt drop" in rules
    assert "ip daddr != 10.1.0.0/24 accept" not in rules
    opened = inside.filter_rules(LocalCloudConfig(outbound=True))
    assert opened.index("ip daddr != 10.255.0.0/24 accept") < opened.index("oifname os-br-mgmt drop")


def test_without_outbound_no_way_leads_out() -> None:
    assert "route add default" not in inside.links(CONFIG)
    assert "route add unreachable default" in inside.links(CONFIG)
    assert "route add default via 10.255.0.254" in inside.links(LocalCloudConfig(outbound=True))

"""cloud.conf and annotations: what is read, and what is said about what is wrong."""

from __future__ import annotations

import pytest
import yaml

from moyai.ccm.manifests import ManifestOptions, render
from moyai.ccm.octavia.annotations import PREFIX, read_settings, unknown_annotations
from moyai.ccm.settings import (
    CcmConfig,
    ClusterConfig,
    LoadBalancerClass,
    LoadBalancerConfig,
    RouteConfig,
    read_ccm_config,
    write_ccm_config,
)
from moyai.cloud.openstack import ADAPTER
from moyai.cloud.openstack.cloud_conf import GlobalConfig
from moyai.core.errors import UsageError
from moyai.kube.objects import Ingress, Service
from moyai.plan.load_balancer.service_settings import LoadBalancerSettings, MonitorSettings

ID = "11111111-2222-3333-4444-555555555555"
PLAIN = CcmConfig(GlobalConfig(auth_url="http://cloud/v3"))


def settings(config: CcmConfig = PLAIN, **annotations: str) -> LoadBalancerSettings:
    given = {PREFIX + name.replace("_", "-"): value for name, value in annotations.items()}
    return read_settings(Service("ns", "web", "u", annotations=given), config)


def test_what_is_written_is_read_again_secrets_with_odd_characters_too() -> None:
    config = CcmConfig(
        GlobalConfig(
            auth_url="http://cloud/v3", application_credential_id="a", application_credential_secret='x"y\\z;#= %(a)s'
        ),
        LoadBalancerConfig(subnet_id=ID, create_monitor=False, monitor_delay=7),
        RouteConfig("r"),
        ClusterConfig("uid", ("g1", "g2")),
        {"gold": LoadBalancerClass(floating_network_id=ID)},
    )
    assert read_ccm_config(write_ccm_config(config), ADAPTER) == config


def test_a_file_of_the_upstream_controller_is_understood() -> None:
    config = read_ccm_config(
        """
        # a comment
        [Global]
        auth-url=https://cloud.example/v3
        application-credential-id=abc
        application-credential-secret=def
        region=RegionOne
        tls-insecure=true
        os-endpoint-type=public

        [LoadBalancer]
        use-octavia=true
        floating-network-id=net
        subnet-id="sub"
        create-monitor=yes
        monitor-delay=1m30s
        monitor-timeout=5s
        monitor-max-retries=2

        [LoadBalancerClass "internet"]
        floating-network-id=other

        [BlockStorage]
        bs-version=v3
        """.replace("\n        ", "\n"),
        ADAPTER,
    )
    assert isinstance(config.cloud, GlobalConfig)
    assert config.cloud.tls_insecure
    assert config.load_balancer.subnet_id == "sub"
    assert config.load_balancer.monitor_delay == 90
    assert config.classes["internet"].floating_network_id == "other"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no auth-url"),
        ("nonsense", "cannot be read"),
        ("[Global]\nauth-url=x\ntls-insecure=perhaps", r"\[Global\] tls-insecure = 'perhaps'"),
        ("[Global]\nauth-url=x\n[LoadBalancer]\nmonitor-delay=soon", r"\[LoadBalancer\] monitor-delay = 'soon'"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_ccm_config(text, ADAPTER)


def test_no_secret_is_in_a_repr() -> None:
    config = GlobalConfig(auth_url="x", application_credential_secret="hidden-one", password="hidden-two")
    assert "hidden" not in repr(CcmConfig(config))


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("subnet-id", "my-subnet", "UUID"),
        ("connection-limit", "1e3", "whole number from -1"),
        ("connection-limit", "-2", "whole number from -1"),
        ("connection-limit", "9" * 6000, "whole number from -1"),
        ("connection-limit", "\u0663", "whole number from -1"),
        ("timeout-client-data", "50s", "whole number from 0"),
        ("keep-floatingip", "maybe", '"true" or "false"'),
        ("proxy-protocol", "v3", '"v2"'),
        ("health-monitor-max-retries", "11", "from 1 to 10"),
        ("class", "gold", "LoadBalancerClass"),
        ("hostname", "not a host", "host name"),
        ("node-selector", "=x", "labels such as"),
        ("lb-method", "RANDOM", "ROUND_ROBIN"),
        ("load-balancer-address", "somewhere", "IP address"),
    ],
)
def test_a_wrong_annotation_is_named_with_its_value_and_what_is_right(name: str, value: str, right: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_settings(Service("ns", "web", "u", annotations={PREFIX + name: value}), PLAIN)
    text = str(caught.value)
    assert PREFIX + name in text
    assert repr(value) in text
    assert right in text


def test_annotations_go_before_the_file() -> None:
    config = CcmConfig(PLAIN.cloud, LoadBalancerConfig(subnet_id=ID, monitor_delay=9, flavor_id=ID))
    found = settings(config, health_monitor_delay="4", network_id=ID)
    assert found.monitor == MonitorSettings(delay=4)
    assert (found.vip_subnet_id, found.vip_network_id) == ("", ID)
    assert found.flavor_id == ID
    assert settings(config).vip_subnet_id == ID
    assert settings(config, enable_health_monitor="false").monitor is None


def test_a_class_chooses_networks() -> None:
    config = CcmConfig(PLAIN.cloud, LoadBalancerConfig(subnet_id="x"), classes={"gold": LoadBalancerClass(subnet_id=ID)})
    assert settings(config, **{"class": "gold"}).vip_subnet_id == ID


def test_the_address_annotation_is_a_wish_only_before_there_is_an_address() -> None:
    notes = {PREFIX + "load-balancer-address": "203.0.113.9"}
    assert read_settings(Service("n", "s", "u", annotations=notes), PLAIN).floating_address == "203.0.113.9"
    told = Service("n", "s", "u", annotations=notes, ingress=(Ingress("203.0.113.9"),))
    assert read_settings(told, PLAIN).floating_address == ""


def test_source_ranges_are_normalised_and_everybody_is_no_limit() -> None:
    def ranges(*given: str) -> tuple[str, ...]:
        return read_settings(Service("n", "s", "u", source_ranges=given), PLAIN).source_ranges

    assert ranges("192.0.2.7/24", "10.0.0.0/8") == ("10.0.0.0/8", "192.0.2.0/24")
    assert ranges("0.0.0.0/0") == ()
    with pytest.raises(UsageError, match="loadBalancerSourceRanges holds 'all'"):
        ranges("all")


def test_annotations_without_effect_are_told() -> None:
    service = Service("n", "s", "u", annotations={PREFIX + "enable-ingress-hostname": "true", "other/x": "y"})
    (found,) = unknown_annotations(service)
    assert found.startswith(PREFIX + "enable-ingress-hostname (not needed")


def test_the_manifests_are_whole_and_ask_for_no_more_than_needed() -> None:
    config = CcmConfig(GlobalConfig(auth_url="u", application_credential_secret="hidden"), cluster=ClusterConfig("uid"))
    text = render(ManifestOptions("demo", config, "image:1", "10.244.0.0/16", api_server="10.0.0.5:6443"))
    objects = {one["kind"]: one for one in yaml.safe_load_all(text)}
    rules = objects["ClusterRole"]["rules"]
    assert not any("*" in rule["verbs"] + rule["resources"] for rule in rules)
    assert not any("secrets" in rule["resources"] for rule in rules)
    assert text.count("hidden") == 1
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {"name": "KUBERNETES_SERVICE_HOST", "value": "10.0.0.5"} in container["env"]
    assert container["securityContext"]["runAsNonRoot"]
    assert "--leader-elect=false" in container["args"]
    tolerated = {one["key"] for one in pod["tolerations"]}
    assert "node.cloudprovider.kubernetes.io/uninitialized" in tolerated

"""What the load-balancer provider refuses, and that it refuses nothing that it can do."""

from __future__ import annotations

from typing import Any

import pytest

from moyai.localcloud.drivers.octavia import validate as v


def full(**pool: Any) -> dict[str, Any]:
    """A load balancer as Octavia hands it over."""
    return {
        "vip_address": "10.0.0.9",
        "listeners": [
            {"protocol": "TCP", "l7policies": [], "insert_headers": {}, "tls_versions": None, "sni_container_refs": []}
        ],
        "pools": [{"protocol": "TCP", "lb_algorithm": "ROUND_ROBIN", "tls_enabled": False, **pool}],
    }


def test_what_it_can_do() -> None:
    assert v.balancer(full()) is None
    assert v.balancer(full(protocol="UDP", members=[{"address": "10.0.0.1"}], healthmonitor={"type": "UDP-CONNECT"})) is None
    assert v.pool({"protocol": "UDP", "session_persistence": {"type": "SOURCE_IP", "persistence_timeout": 60}}) is None
    assert v.pool({"protocol": "HTTP", "session_persistence": {"type": "APP_COOKIE", "cookie_name": "J"}}) is None
    assert v.monitor({"type": "HTTP", "url_path": "/a?b", "expected_codes": "200, 201"}) is None
    assert v.listener({"protocol": "HTTP", "insert_headers": {"X-Forwarded-For": "true", "X-Real-IP": "false"}}) is None
    assert v.vips({"vip_subnet_id": "x"}, []) is None
    assert v.no_choice("flavor", {}) is None


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (v.listener({"protocol": "TERMINATED_HTTPS"}), "Barbican"),
        (v.listener({"protocol": "PROMETHEUS"}), "supported: HTTP, HTTPS, TCP, UDP"),
        (v.listener({"default_tls_container_ref": "x"}), "Barbican"),
        (v.listener({"l7policies": [{}]}), "L7"),
        (v.listener({"insert_headers": {"X-Real-IP": "true"}}), "X-Real-IP"),
        (v.balancer(full(protocol="SCTP")), "SCTP"),
        (v.balancer(full(tls_enabled=True)), "TLS"),
        (v.balancer(full(protocol="UDP", lb_algorithm="LEAST_CONNECTIONS")), "over UDP"),
        (v.balancer(full(protocol="UDP", members=[{"address": "2001:db8::1"}])), "IP version"),
        (v.balancer(full(protocol="UDP", session_persistence={"type": "HTTP_COOKIE"})), "over UDP"),
        (v.balancer(full(session_persistence={"type": "HTTP_COOKIE"})), "HTTP_COOKIE"),
        (v.balancer({**full(), "vip_qos_policy_id": "x"}), "QoS"),
        (v.balancer({**full(), "additional_vips": [{}]}), "additional VIPs"),
        (v.vips({}, [{"subnet_id": "x"}]), "additional VIPs"),
        (v.vips({"vip_qos_policy_id": "x"}, []), "QoS"),
        (
            v.pool({"protocol": "UDP", "session_persistence": {"type": "SOURCE_IP", "persistence_granularity": "255.0.0.0"}}),
            "gran",
        ),
        (v.monitor({"type": "SCTP"}), "SCTP"),
        (v.monitor({"type": "HTTP", "url_path": "/a' b"}), "quote"),
        (v.monitor({"type": "HTTP", "url_path": "/a\nb"}), "control"),
        (v.member({"vnic_type": "direct"}, "TCP", vip=None), "vnic_type"),
        (v.no_choice("flavor", {"x": 1}), "x"),
    ],
)
def test_what_it_refuses(problem: str | None, words: str) -> None:
    assert problem is not None
    assert words in problem

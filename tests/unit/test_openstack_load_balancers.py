"""What Octavia is sent for values of ``cloud.load_balancers``, and how its answers are read."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from moyai.cloud.load_balancers import (
    BalancingAlgorithm,
    CheckType,
    Listener,
    LoadBalancer,
    Member,
    Monitor,
    Pool,
    SessionPersistence,
    TrafficProtocol,
)
from tests.unit.openstack_server import Answer, OpenStackServer, openstack_server

LB = "/lb/v2/lbaas"
POOL: dict[str, Any] = {"id": "p1", "name": "pool", "protocol": "PROXYV2", "lb_algorithm": "SOURCE_IP_PORT"}
TREE = LoadBalancer(
    "web",
    vip_subnet_id="s1",
    listeners=(
        Listener(
            "listener",
            TrafficProtocol.TCP,
            80,
            Pool(
                "pool",
                TrafficProtocol.PROXY_V2,
                BalancingAlgorithm.SOURCE_ADDRESS_AND_PORT,
                (Member("10.0.0.1", 30080),),
                Monitor(CheckType.UDP, 5, 3, 1),
                SessionPersistence.SOURCE_ADDRESS,
            ),
        ),
    ),
)


@pytest.fixture
def played() -> Generator[OpenStackServer]:
    with openstack_server() as server:
        yield server


def test_a_tree_is_sent_in_octavias_words(played: OpenStackServer) -> None:
    played.on("POST", f"{LB}/loadbalancers", Answer(201, {"loadbalancer": {"id": "b1", "name": "web"}}))
    played.cloud().load_balancers.create(TREE)
    (listener,) = played.made("POST", f"{LB}/loadbalancers")[0].json["loadbalancer"]["listeners"]
    pool = listener["default_pool"]
    assert (listener["protocol"], listener["protocol_port"]) == ("TCP", 80)
    assert (pool["protocol"], pool["lb_algorithm"]) == ("PROXYV2", "SOURCE_IP_PORT")
    assert pool["session_persistence"] == {"type": "SOURCE_IP"}
    assert pool["healthmonitor"]["type"] == "UDP-CONNECT"


def test_a_health_check_by_https_is_sent_and_read_in_octavias_words(played: OpenStackServer) -> None:
    there = {"id": "m1", "type": "HTTPS", "delay": 1, "timeout": 1, "max_retries": 1, "url_path": "/readyz"}
    played.on("POST", f"{LB}/healthmonitors", Answer(201, {"healthmonitor": there}))
    wanted = Monitor(CheckType.HTTPS, 1, 1, 1, url_path="/readyz", http_method="GET", expected_codes="200")
    made = played.cloud().load_balancers.create_monitor("p1", wanted)
    sent = played.made("POST", f"{LB}/healthmonitors")[0].json["healthmonitor"]
    assert (sent["type"], sent["url_path"], sent["expected_codes"]) == ("HTTPS", "/readyz", "200")
    assert made.type is CheckType.HTTPS


def test_a_change_of_a_pool_is_sent_in_octavias_words(played: OpenStackServer) -> None:
    played.on("PUT", f"{LB}/pools/p1", {"pool": POOL})
    balancers = played.cloud().load_balancers
    balancers.update_pool("p1", {"algorithm": BalancingAlgorithm.LEAST_CONNECTIONS, "persistence": SessionPersistence.NONE})
    balancers.update_pool("p1", {"persistence": SessionPersistence.SOURCE_ADDRESS})
    assert [one.json["pool"] for one in played.made("PUT", f"{LB}/pools/p1")] == [
        {"lb_algorithm": "LEAST_CONNECTIONS", "session_persistence": None},
        {"session_persistence": {"type": "SOURCE_IP"}},
    ]


def test_a_tree_is_read_into_values_and_what_moyai_never_asks_for_is_another(played: OpenStackServer) -> None:
    listener = {"id": "l1", "name": "listener", "protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_pool_id": "p1"}
    cookie = {**POOL, "session_persistence": {"type": "HTTP_COOKIE"}, "healthmonitor_id": "m1"}
    monitor = {"id": "m1", "type": "PING", "delay": 5, "timeout": 3, "max_retries": 1}
    played.on("GET", f"{LB}/loadbalancers/b1", {"loadbalancer": {"id": "b1", "provisioning_status": "ACTIVE"}})
    played.on("GET", f"{LB}/listeners", {"listeners": [listener]})
    played.on("GET", f"{LB}/pools", {"pools": [cookie]})
    played.on("GET", f"{LB}/pools/p1/members", {"members": []})
    played.on("GET", f"{LB}/healthmonitors/m1", {"healthmonitor": monitor})
    (found,) = played.cloud().load_balancers.get("b1").listeners
    assert found.protocol is TrafficProtocol.OTHER
    assert found.key == (TrafficProtocol.TCP, 443)
    assert found.pool
    assert found.pool.protocol is TrafficProtocol.PROXY_V2
    assert found.pool.algorithm is BalancingAlgorithm.SOURCE_ADDRESS_AND_PORT
    assert found.pool.persistence is SessionPersistence.OTHER
    assert found.pool.monitor
    assert found.pool.monitor.type is CheckType.OTHER

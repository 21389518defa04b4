"""The words of Octavia's load balancers as values of ``cloud.load_balancers``, and back.

A word that moyai never asks for reads as ``OTHER`` or ``UNKNOWN``. ``OTHER`` has no word, so that it cannot be asked for.
"""

from __future__ import annotations

from moyai.cloud.load_balancers import (
    BalancerState,
    BalancingAlgorithm,
    CheckType,
    Health,
    SessionPersistence,
    TrafficProtocol,
)

#: Source: https://docs.openstack.org/api-ref/load-balancer/v2/#provisioning-status-codes
_STATES = {
    "ACTIVE": BalancerState.ACTIVE,
    "PENDING_CREATE": BalancerState.BUSY,
    "PENDING_UPDATE": BalancerState.BUSY,
    "PENDING_DELETE": BalancerState.DELETING,
    "DELETED": BalancerState.DELETED,
    "ERROR": BalancerState.FAILED,
}
#: Source: https://docs.openstack.org/api-ref/load-balancer/v2/#operating-status-codes
_HEALTH = {"ONLINE": Health.ONLINE, "DEGRADED": Health.DEGRADED, "ERROR": Health.FAILED}

#: Source: https://docs.openstack.org/api-ref/load-balancer/v2/#create-pool
PROTOCOLS = {
    TrafficProtocol.TCP: "TCP",
    TrafficProtocol.UDP: "UDP",
    TrafficProtocol.SCTP: "SCTP",
    TrafficProtocol.HTTP: "HTTP",
    TrafficProtocol.PROXY_V1: "PROXY",
    TrafficProtocol.PROXY_V2: "PROXYV2",
}
ALGORITHMS = {
    BalancingAlgorithm.ROUND_ROBIN: "ROUND_ROBIN",
    BalancingAlgorithm.LEAST_CONNECTIONS: "LEAST_CONNECTIONS",
    BalancingAlgorithm.SOURCE_ADDRESS: "SOURCE_IP",
    BalancingAlgorithm.SOURCE_ADDRESS_AND_PORT: "SOURCE_IP_PORT",
}
PERSISTENCES = {SessionPersistence.SOURCE_ADDRESS: "SOURCE_IP"}
#: Source: https://docs.openstack.org/api-ref/load-balancer/v2/#create-health-monitor
CHECKS = {
    CheckType.TCP: "TCP",
    CheckType.UDP: "UDP-CONNECT",
    CheckType.SCTP: "SCTP",
    CheckType.HTTP: "HTTP",
    CheckType.HTTPS: "HTTPS",
}

_PROTOCOLS_READ = {word: value for value, word in PROTOCOLS.items()}
_ALGORITHMS_READ = {word: value for value, word in ALGORITHMS.items()}
_PERSISTENCES_READ = {"": SessionPersistence.NONE} | {word: value for value, word in PERSISTENCES.items()}
_CHECKS_READ = {word: value for value, word in CHECKS.items()}


def state(provisioning_status: str) -> BalancerState:
    return _STATES.get(provisioning_status, BalancerState.UNKNOWN)


def health(operating_status: str) -> Health:
    return _HEALTH.get(operating_status, Health.UNKNOWN)


def protocol(word: str) -> TrafficProtocol:
    return _PROTOCOLS_READ.get(word, TrafficProtocol.OTHER)


def algorithm(word: str) -> BalancingAlgorithm:
    return _ALGORITHMS_READ.get(word, BalancingAlgorithm.OTHER)


def persistence(word: str) -> SessionPersistence:
    return _PERSISTENCES_READ.get(word, SessionPersistence.OTHER)


def check(word: str) -> CheckType:
    return _CHECKS_READ.get(word, CheckType.OTHER)

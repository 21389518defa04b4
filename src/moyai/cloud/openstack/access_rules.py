"""What the calls of ``cloud.credentials.CALLS`` are in OpenStack: Keystone's access rules of an application credential.

A rule is a service, a method and a path. Always holds: all that the adapter sends for a call has a rule, and each rule is used
(a unit test plays every call). A rule cannot look into a request's body: with the right to stop a server come all its actions.
Sources: keystonemiddleware's ``auth_token`` matches the path of a request from its first slash on, prefixes of the deployment
included; ``*`` stands for one part of a path; the type of the service is what the service itself is configured with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from moyai.cloud.credentials import Use

#: Service → methods and path, relative to the API's base.
_Table = Mapping[str, tuple[str, ...]]

_CONTROLLERS: _Table = {
    "compute": ("GET /servers/*", "POST /servers/*/action"),
    "network": (
        "GET /extensions",
        "GET /networks",
        "GET /subnets",
        "GET|POST /ports",
        "PUT /ports/*",
        "GET /routers/*",
        "PUT /routers/*/add_extraroutes",
        "PUT /routers/*/remove_extraroutes",
        "GET|POST /security-group-rules",
        "DELETE /security-group-rules/*",
        "GET|POST /floatingips",
        "PUT|DELETE /floatingips/*",
        "PUT|POST /floatingips/*/tags",
        "PUT /floatingips/*/tags/*",
    ),
    "load-balancer": (
        "GET|POST /lbaas/loadbalancers",
        "GET|PUT|DELETE /lbaas/loadbalancers/*",
        "PUT /lbaas/loadbalancers/*/failover",
        "GET|POST /lbaas/listeners",
        "PUT|DELETE /lbaas/listeners/*",
        "GET|POST /lbaas/pools",
        "PUT|DELETE /lbaas/pools/*",
        "GET|PUT /lbaas/pools/*/members",
        "POST /lbaas/healthmonitors",
        "GET|PUT|DELETE /lbaas/healthmonitors/*",
    ),
}
#: Without the extension ``extraroute-atomic`` routes are written with the router itself.
WITHOUT_ATOMIC_ROUTES: _Table = {"network": ("PUT /routers/*",)}
_VOLUMES: _Table = {
    "compute": (
        "GET /servers/*",
        "GET /os-availability-zone",
        "POST /servers/*/os-volume_attachments",
        "DELETE /servers/*/os-volume_attachments/*",
    ),
    "block-storage": (
        "POST /volumes",
        "GET|DELETE /volumes/*",
        "POST /volumes/*/action",
        "POST /snapshots",
        "GET|DELETE /snapshots/*",
        "GET /types",
        "GET /os-availability-zone",
        "GET /messages",
        "GET /limits",
        "DELETE /attachments/*",
    ),
}
#: What services call in the caller's name, where they do not send a token of their own beside it: Octavia looks at the network
#: of a load balancer and its members; Nova lists the ports and groups of servers, and records in Cinder what it attaches.
IN_THE_CALLERS_NAME: Mapping[Use, _Table] = {
    Use.CONTROLLERS: {"network": ("GET /networks/*", "GET /subnets/*", "GET /ports/*", "GET /security-groups")},
    Use.VOLUMES: {
        "network": ("GET /ports", "GET /security-groups"),
        "block-storage": ("POST /attachments", "GET|PUT /attachments/*", "POST /attachments/*/action"),
    },
}
CALLED: Mapping[Use, _Table] = {Use.CONTROLLERS: _CONTROLLERS, Use.VOLUMES: _VOLUMES}
#: Service → what every use may read there: it shows whether the service checks rules.
PROBES: Mapping[str, str] = {
    "compute": "/servers/detail",
    "network": "/ports",
    "load-balancer": "/lbaas/loadbalancers",
    "block-storage": "/volumes/detail",
}
_VERSION = re.compile(r"/v\d+(\.\d+)?(/|$)")


class Rule(NamedTuple):
    """In the words of Keystone's API."""

    service: str
    method: str
    path: str


@dataclass(frozen=True)
class RuleFacts:
    """What rules depend on. ``offered``: the services that the cloud has. ``atomic_routes``: whether Neutron has that
    extension. ``base``: the path of an API's base address. ``types``: the types under which a service stands in the catalog."""

    offered: Collection[str]
    atomic_routes: bool
    base: Callable[[str], str]
    types: Callable[[str], Collection[str]]


def rules_of(use: Use, cloud: RuleFacts) -> list[Rule]:
    """All rules of a use."""
    tables = [*_called(use, cloud), IN_THE_CALLERS_NAME[use]]
    return list(dict.fromkeys(rule for rules in _alternatives(tables, cloud) for rule in rules))


def requests_of(use: Use, cloud: RuleFacts) -> list[list[Rule]]:
    """What a use itself sends: for each request its rules, of which the service looks for one."""
    return list(_alternatives(_called(use, cloud), cloud))


def _called(use: Use, cloud: RuleFacts) -> list[_Table]:
    return [CALLED[use], *([WITHOUT_ATOMIC_ROUTES] if use is Use.CONTROLLERS and not cloud.atomic_routes else [])]


def _alternatives(tables: Collection[_Table], cloud: RuleFacts) -> Iterator[list[Rule]]:
    for table in tables:
        for service, lines in table.items():
            if service not in cloud.offered:
                continue
            places = [(kind, prefix) for prefix in _prefixes(cloud.base(service)) for kind in cloud.types(service)]
            for method, path in split(lines):
                yield [Rule(kind, method, prefix + path) for kind, prefix in places]


def split(lines: Collection[str]) -> Iterator[tuple[str, str]]:
    """Method and path of each rule of a table's lines."""
    for line in lines:
        methods, _, path = line.partition(" ")
        for method in methods.split("|"):
            yield method, path


def _prefixes(base: str) -> set[str]:
    """A service sees its path with or without what a proxy has put before the version: a deployment's own matter."""
    found = _VERSION.search(base)
    return {base.rstrip("/"), base[found.start() :].rstrip("/")} if found else {base.rstrip("/")}

"""Load balancers by Octavia (API v2).

What Octavia wants: a tree in one POST only when the load balancer is created; members of a pool in one PUT; nothing while the
load balancer is PENDING. A null in an update sets the default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from moyai.cloud.load_balancers import Listener, LoadBalancer, Member, Monitor, Pool, SessionPersistence
from moyai.cloud.openstack import octavia_words as words
from moyai.cloud.openstack.session import CloudSession, Json
from moyai.core.errors import NotFound

#: Field of ours → key of Octavia's, where they differ.
_LISTENER_KEYS = {
    "port": "protocol_port",
    "timeout_client_data_ms": "timeout_client_data",
    "timeout_member_connect_ms": "timeout_member_connect",
    "timeout_member_data_ms": "timeout_member_data",
    "timeout_tcp_inspect_ms": "timeout_tcp_inspect",
}
_LISTENER_FIELDS = (
    "name",
    "port",
    "allowed_cidrs",
    "connection_limit",
    "timeout_client_data_ms",
    "timeout_member_connect_ms",
    "timeout_member_data_ms",
    "timeout_tcp_inspect_ms",
    "insert_headers",
    "tags",
)
_MONITOR_FIELDS = (
    "name",
    "delay",
    "timeout",
    "max_retries",
    "max_retries_down",
    "url_path",
    "http_method",
    "expected_codes",
)


class OctaviaLoadBalancers:
    """Implements ``cloud.load_balancers.LoadBalancers``."""

    def __init__(self, session: CloudSession) -> None:
        self._octavia = session.service("load-balancer")

    def load_balancers(self, *, tag: str | None = None, name: str | None = None) -> list[LoadBalancer]:
        params = {key: value for key, value in (("tags", tag), ("name", name)) if value is not None}
        found = self._octavia.list("/lbaas/loadbalancers", "loadbalancers", operation="list load balancers", params=params)
        return [_load_balancer(one) for one in found]

    def providers(self) -> list[str]:
        found = self._octavia.list("/lbaas/providers", "providers", operation="list load balancer providers")
        return [str(one["name"]) for one in found]

    def head(self, load_balancer_id: str) -> LoadBalancer:
        answer = self._octavia.get(
            f"/lbaas/loadbalancers/{load_balancer_id}", operation="read load balancer", object_id=load_balancer_id
        )
        return _load_balancer(answer["loadbalancer"])

    def get(self, load_balancer_id: str) -> LoadBalancer:
        # the parts are asked for side by side: one after the other a tree of three ports takes a second
        with ThreadPoolExecutor(max_workers=4, thread_name_prefix="octavia") as pool:
            head = pool.submit(self.head, load_balancer_id)
            listeners = pool.submit(
                self._octavia.list,
                "/lbaas/listeners",
                "listeners",
                operation="list listeners",
                params={"load_balancer_id": load_balancer_id},
            )
            pools = self._octavia.list(
                "/lbaas/pools", "pools", operation="list pools", params={"loadbalancer_id": load_balancer_id}
            )
            trees = {tree.id: tree for tree in pool.map(self._pool, pools) if tree}
            found = listeners.result()
            balancer = head.result()
        used = {str(one["default_pool_id"]) for one in found if one.get("default_pool_id")}
        return replace(
            balancer,
            listeners=tuple(_listener(one, trees) for one in found),
            loose_pools=tuple(tree for tree in trees.values() if tree.id not in used),
        )

    def _pool(self, found: Json) -> Pool | None:
        try:
            members = self._octavia.list(f"/lbaas/pools/{found['id']}/members", "members", operation="list members", params={})
        except NotFound:
            return None  # deleted between the two calls
        monitor: Monitor | None = None
        if monitor_id := found.get("healthmonitor_id"):
            try:
                answer = self._octavia.get(
                    f"/lbaas/healthmonitors/{monitor_id}", operation="read health monitor", object_id=str(monitor_id)
                )
                monitor = _monitor(answer["healthmonitor"])
            except NotFound:
                monitor = None  # deleted between the two calls
        return _pool(found, tuple(_member(one) for one in members), monitor=monitor)

    def create(self, wanted: LoadBalancer) -> LoadBalancer:
        body: Json = {
            "name": wanted.name,
            "description": wanted.description,
            "tags": list(wanted.tags),
            "listeners": [_listener_body(one) for one in wanted.listeners],
        }
        optional = {
            "vip_subnet_id": wanted.vip_subnet_id,
            "vip_network_id": wanted.vip_network_id,
            "vip_port_id": wanted.vip_port_id,
            "vip_address": wanted.vip_address,
            "provider": wanted.provider,
            "availability_zone": wanted.zone,
            "flavor_id": wanted.flavor_id,
        }
        body |= {key: value for key, value in optional.items() if value}
        answer = self._octavia.post(
            "/lbaas/loadbalancers", {"loadbalancer": body}, operation="create load balancer", object_id=wanted.name
        )
        return _load_balancer(answer["loadbalancer"])

    def update(
        self,
        load_balancer_id: str,
        *,
        tags: Sequence[str] | None = None,
        description: str | None = None,
        name: str | None = None,
    ) -> None:
        body: Json = {key: value for key, value in (("description", description), ("name", name)) if value is not None}
        if tags is not None:
            body["tags"] = list(tags)
        self._put(
            f"/lbaas/loadbalancers/{load_balancer_id}",
            "loadbalancer",
            body=body,
            operation="change load balancer",
            object_id=load_balancer_id,
        )

    def delete(self, load_balancer_id: str) -> None:
        try:
            self._octavia.delete(
                f"/lbaas/loadbalancers/{load_balancer_id}",
                operation="delete load balancer",
                object_id=load_balancer_id,
                params={"cascade": "true"},
            )
        except NotFound:
            return

    def failover(self, load_balancer_id: str) -> None:
        self._octavia.put(
            f"/lbaas/loadbalancers/{load_balancer_id}/failover",
            {},
            operation="fail over load balancer",
            object_id=load_balancer_id,
        )

    def create_listener(self, load_balancer_id: str, wanted: Listener) -> Listener:
        body = {**_listener_body(wanted, tree=False), "loadbalancer_id": load_balancer_id}
        answer = self._octavia.post("/lbaas/listeners", {"listener": body}, operation="create listener", object_id=wanted.name)
        return _listener(answer["listener"], {})

    def update_listener(self, listener_id: str, changes: Mapping[str, Any]) -> None:
        body: Json = {_LISTENER_KEYS.get(key, key): _plain(value) for key, value in changes.items()}
        if "allowed_cidrs" in body:
            body["allowed_cidrs"] = body["allowed_cidrs"] or None
        self._put(f"/lbaas/listeners/{listener_id}", "listener", body=body, operation="change listener", object_id=listener_id)

    def delete_listener(self, listener_id: str) -> None:
        self._delete(f"/lbaas/listeners/{listener_id}", "delete listener", object_id=listener_id)

    def create_pool(self, wanted: Pool, *, listener_id: str) -> Pool:
        body = {**_pool_body(wanted, tree=False), "listener_id": listener_id}
        answer = self._octavia.post("/lbaas/pools", {"pool": body}, operation="create pool", object_id=wanted.name)
        return _pool(answer["pool"], (), monitor=None)

    def update_pool(self, pool_id: str, changes: Mapping[str, Any]) -> None:
        body: Json = {}
        for key, value in changes.items():
            if key == "algorithm":
                body["lb_algorithm"] = words.ALGORITHMS[value]
            elif key == "persistence":
                body["session_persistence"] = _persistence(value)
            else:
                body[key] = _plain(value)
        self._put(f"/lbaas/pools/{pool_id}", "pool", body=body, operation="change pool", object_id=pool_id)

    def delete_pool(self, pool_id: str) -> None:
        self._delete(f"/lbaas/pools/{pool_id}", "delete pool", object_id=pool_id)

    def set_members(self, pool_id: str, members: Sequence[Member]) -> None:
        self._put(
            f"/lbaas/pools/{pool_id}/members",
            "members",
            body=[_member_body(one) for one in members],
            operation="set members of pool",
            object_id=pool_id,
        )

    def create_monitor(self, pool_id: str, wanted: Monitor) -> Monitor:
        answer = self._octavia.post(
            "/lbaas/healthmonitors",
            {"healthmonitor": {**_monitor_body(wanted), "pool_id": pool_id}},
            operation="create health monitor",
            object_id=pool_id,
        )
        return _monitor(answer["healthmonitor"])

    def update_monitor(self, monitor_id: str, changes: Mapping[str, Any]) -> None:
        self._put(
            f"/lbaas/healthmonitors/{monitor_id}",
            "healthmonitor",
            body=dict(changes),
            operation="change health monitor",
            object_id=monitor_id,
        )

    def delete_monitor(self, monitor_id: str) -> None:
        self._delete(f"/lbaas/healthmonitors/{monitor_id}", "delete health monitor", object_id=monitor_id)

    def _put(self, path: str, key: str, *, body: Json | list[Json], operation: str, object_id: str) -> None:
        self._octavia.put(path, {key: body}, operation=operation, object_id=object_id)

    def _delete(self, path: str, operation: str, *, object_id: str) -> None:
        try:
            self._octavia.delete(path, operation=operation, object_id=object_id)
        except NotFound:
            return


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return dict(value) if isinstance(value, Mapping) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _text(found: Json, key: str) -> str:
    return str(found.get(key) or "")


def _load_balancer(found: Json) -> LoadBalancer:
    return LoadBalancer(
        name=_text(found, "name"),
        vip_subnet_id=_text(found, "vip_subnet_id"),
        vip_network_id=_text(found, "vip_network_id"),
        vip_port_id=_text(found, "vip_port_id"),
        vip_address=_text(found, "vip_address"),
        provider=_text(found, "provider"),
        zone=_text(found, "availability_zone"),
        flavor_id=_text(found, "flavor_id"),
        description=_text(found, "description"),
        tags=tuple(found.get("tags") or ()),
        status=_text(found, "provisioning_status"),
        state=words.state(_text(found, "provisioning_status")),
        health=words.health(_text(found, "operating_status")),
        id=_text(found, "id"),
    )


def _listener(found: Json, pools: Mapping[str, Pool]) -> Listener:
    return Listener(
        name=_text(found, "name"),
        protocol=words.protocol(_text(found, "protocol")),
        port=int(found["protocol_port"]),
        pool=pools.get(_text(found, "default_pool_id")),
        allowed_cidrs=tuple(found.get("allowed_cidrs") or ()),
        connection_limit=found.get("connection_limit"),
        timeout_client_data_ms=found.get("timeout_client_data"),
        timeout_member_connect_ms=found.get("timeout_member_connect"),
        timeout_member_data_ms=found.get("timeout_member_data"),
        timeout_tcp_inspect_ms=found.get("timeout_tcp_inspect"),
        insert_headers=dict(found.get("insert_headers") or {}),
        tags=tuple(found.get("tags") or ()),
        id=_text(found, "id"),
    )


def _pool(found: Json, members: tuple[Member, ...], *, monitor: Monitor | None) -> Pool:
    return Pool(
        name=_text(found, "name"),
        protocol=words.protocol(_text(found, "protocol")),
        algorithm=words.algorithm(_text(found, "lb_algorithm")),
        members=members,
        monitor=monitor,
        persistence=words.persistence(_text(found.get("session_persistence") or {}, "type")),
        tags=tuple(found.get("tags") or ()),
        id=_text(found, "id"),
    )


def _member(found: Json) -> Member:
    return Member(
        address=_text(found, "address"),
        port=int(found["protocol_port"]),
        subnet_id=_text(found, "subnet_id"),
        weight=int(found.get("weight", 1)),
        monitor_port=found.get("monitor_port"),
        name=_text(found, "name"),
        health=words.health(_text(found, "operating_status")),
        id=_text(found, "id"),
    )


def _monitor(found: Json) -> Monitor:
    return Monitor(
        type=words.check(_text(found, "type")),
        delay=int(found["delay"]),
        timeout=int(found["timeout"]),
        max_retries=int(found["max_retries"]),
        max_retries_down=int(found.get("max_retries_down") or 3),
        url_path=found.get("url_path"),
        http_method=found.get("http_method"),
        expected_codes=found.get("expected_codes"),
        name=_text(found, "name"),
        id=_text(found, "id"),
    )


def _listener_body(wanted: Listener, *, tree: bool = True) -> Json:
    body: Json = {"protocol": words.PROTOCOLS[wanted.protocol]}
    for name in _LISTENER_FIELDS:
        value = getattr(wanted, name)
        if value not in (None, (), {}):
            body[_LISTENER_KEYS.get(name, name)] = _plain(value)
    if tree and wanted.pool:
        body["default_pool"] = _pool_body(wanted.pool)
    return body


def _pool_body(wanted: Pool, *, tree: bool = True) -> Json:
    body: Json = {
        "name": wanted.name,
        "protocol": words.PROTOCOLS[wanted.protocol],
        "lb_algorithm": words.ALGORITHMS[wanted.algorithm],
    }
    if wanted.tags:
        body["tags"] = list(wanted.tags)
    if wanted.persistence:
        body["session_persistence"] = _persistence(wanted.persistence)
    if tree:
        body["members"] = [_member_body(one) for one in wanted.members]
        if wanted.monitor:
            body["healthmonitor"] = _monitor_body(wanted.monitor)
    return body


def _persistence(wanted: SessionPersistence) -> Json | None:
    return {"type": words.PERSISTENCES[wanted]} if wanted else None


def _member_body(wanted: Member) -> Json:
    body: Json = {"address": wanted.address, "protocol_port": wanted.port, "weight": wanted.weight, "name": wanted.name}
    if wanted.subnet_id:
        body["subnet_id"] = wanted.subnet_id
    if wanted.monitor_port is not None:
        body["monitor_port"] = wanted.monitor_port
    return body


def _monitor_body(wanted: Monitor) -> Json:
    body: Json = {"type": words.CHECKS[wanted.type]}
    return body | {name: value for name in _MONITOR_FIELDS if (value := getattr(wanted, name)) is not None}

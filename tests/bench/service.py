"""The time from a Service to the first answer, compared with Octavia's own time, and the number of API requests of a Service.

The floor is the same load balancer, created directly: the tree that the cloud controller manager created, with another NodePort
of the same pods. One fully populated create makes it, its floating IP is attached at once, and only the answer is waited for.
The security group rule of that NodePort exists beforehand. Both are measured in turns, so that changes in the machine's load
affect both.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from moyai.cloud.capabilities import Cloud
from moyai.cloud.load_balancers import BalancerState, Health, Listener, LoadBalancer
from moyai.cloud.model import SecurityGroupRule
from moyai.cloud.openstack import connect
from moyai.core.errors import MoyaiError, NotFound
from moyai.core.ids import cluster_tag
from moyai.kube.objects import parse_deployment, parse_service
from moyai.kube.quick import KubeApi
from moyai.kube.resources import DEPLOYMENTS, SERVICES, Json
from moyai.lifecycle.record import Record
from tests.bench import cloud as bench_cloud
from tests.bench.calls import Counter

MADE, ADDRESS, ANSWER, GONE = "create returns", "address known", "first answer", "deleted, gone from the cloud"
_SECONDS = 180.0
#: Between the answer and the counting: what the controller still writes down (status, annotations, events) is part of it.
_SETTLE = 2.0
_EXAMPLE = Path(__file__).parents[2] / "examples/quickstart/nginx.yaml"
_DIRECT = "direct"
_SPACE = "default"


class ServiceBench:
    def __init__(self, record: Record, kubeconfig: Path, *, logs: Path) -> None:
        self._cloud: Cloud = connect(bench_cloud.CONFIG.name)
        self._api = KubeApi.from_file(kubeconfig)
        self._uid, self._client, self._logs = record.uid, record.api_address, logs
        self._port = 0
        self._count = 0
        self._service: Json = {}

    def prepare(self) -> None:
        """The quickstart's pods, all running, and a way to them that no load balancer was made for."""
        documents: list[Json] = list(yaml.safe_load_all(_EXAMPLE.read_text()))
        deployment = next(item for item in documents if item["kind"] == "Deployment")
        self._service = next(item for item in documents if item["kind"] == "Service")
        self._api.create(DEPLOYMENTS, deployment, namespace=_SPACE)
        spec = {**self._service["spec"], "type": "NodePort"}
        body = {**self._service, "metadata": {"name": _DIRECT}, "spec": spec}
        direct = self._api.create(SERVICES, body, namespace=_SPACE)
        self._port = int(direct["spec"]["ports"][0]["nodePort"])
        workers = [
            one for one in self._cloud.firewall.security_groups(tag=cluster_tag(self._uid)) if one.name.endswith("worker")
        ]
        rule = SecurityGroupRule(workers[0].id, protocol="tcp", port_min=self._port, port_max=self._port)
        self._cloud.firewall.create_security_group_rules([rule])
        name = deployment["metadata"]["name"]

        def running() -> bool | None:
            return parse_deployment(self._api.get(DEPLOYMENTS, name, namespace=_SPACE)).done or None

        _until("the pods", running, every=0.5)

    def service(self) -> tuple[dict[str, float], dict[str, int], list[tuple[str, str, str]]]:
        """One Service, which is left there: (phase → seconds, API → requests, the requests themselves)."""
        self._count += 1
        name = self._name
        counter = Counter(self._logs, self._client)
        began = time.monotonic()
        self._api.create(SERVICES, {**self._service, "metadata": {"name": name}}, namespace=_SPACE)
        made = time.monotonic() - began
        address = _until("the Service's address", lambda: self._address(name))
        known = time.monotonic() - began
        _until(f"{address} to answer", lambda: _answers(address))
        phases = {MADE: made, ADDRESS: known, ANSWER: time.monotonic() - began}
        time.sleep(_SETTLE)
        return phases, counter.by_api(), counter.requests()

    def delete(self) -> float:
        """The end of the Service made last, its load balancer included; seconds."""
        began = time.monotonic()
        self._api.delete(SERVICES, self._name, namespace=_SPACE)
        _until("the Service's end", lambda: self._gone(self._name))
        return time.monotonic() - began

    @property
    def _name(self) -> str:
        return f"bench-{self._count}"

    def tree(self) -> LoadBalancer:
        """What the controller made for the Service that is there, as it is asked for when there is nothing yet."""
        balancers = self._cloud.load_balancers
        found = balancers.get(balancers.load_balancers(tag=cluster_tag(self._uid))[0].id)
        return LoadBalancer(
            name="bench-direct",
            vip_subnet_id=found.vip_subnet_id,
            provider=found.provider,
            listeners=tuple(self._listener(one) for one in found.listeners),
        )

    def _listener(self, found: Listener) -> Listener:
        pool = found.pool
        assert pool is not None
        members = tuple(
            replace(member, port=self._port, id="", health=Health.UNKNOWN, name=f"direct-{number}")
            for number, member in enumerate(pool.members)
        )
        monitor = replace(pool.monitor, id="", name="direct") if pool.monitor else None
        bare = replace(pool, name="direct", members=members, monitor=monitor, id="", tags=())
        return replace(found, name="direct", pool=bare, id="", tags=())

    def direct(self, tree: LoadBalancer) -> dict[str, float]:
        """The floor: phase → seconds."""
        addresses, balancers = self._cloud.addresses, self._cloud.load_balancers
        public = self._cloud.networks.networks(external=True)[0].id
        began = time.monotonic()
        made = balancers.create(tree)
        created = time.monotonic() - began
        floating = addresses.create_floating_ip(network_id=public, port_id=made.vip_port_id, tags=[cluster_tag(self._uid)])
        known = time.monotonic() - began
        try:
            _until(f"{floating.address} to answer", lambda: _answers(floating.address))
            phases = {MADE: created, ADDRESS: known, ANSWER: time.monotonic() - began}
            _until("the load balancer to be ACTIVE", lambda: balancers.head(made.id).state is BalancerState.ACTIVE or None)
        finally:
            began = time.monotonic()
            addresses.delete_floating_ip(floating.id)
            _until("the load balancer to take its end", lambda: self._delete(made.id))
            _until("the load balancer's end", lambda: self._balancer_gone(made.id))
        return phases | {GONE: time.monotonic() - began}

    # ---- what is

    def _address(self, name: str) -> str | None:
        return parse_service(self._api.get(SERVICES, name, namespace=_SPACE)).address or None

    def _gone(self, name: str) -> bool | None:
        try:
            self._api.get(SERVICES, name, namespace=_SPACE)
        except NotFound:
            return True
        return None

    def _delete(self, identity: str) -> bool | None:
        try:
            self._cloud.load_balancers.delete(identity)
        except MoyaiError:
            return None
        return True

    def _balancer_gone(self, identity: str) -> bool | None:
        try:
            return self._cloud.load_balancers.head(identity).state is BalancerState.DELETED or None
        except NotFound:
            return True


def _until(what: str, look: Callable[[], Any], *, every: float = 0.05) -> Any:
    end = time.monotonic() + _SECONDS
    while (found := look()) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"waited {_SECONDS:.0f} s for {what}")
        time.sleep(every)
    return found


def _answers(address: str) -> bool | None:
    """True when an HTTP request is answered with 200, else None; within a quarter of a second."""
    connection = http.client.HTTPConnection(address, 80, timeout=0.25)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        return connection.getresponse().status == 200 or None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()

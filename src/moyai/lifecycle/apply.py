"""Manifests beside the spec: applied with kubectl, then waited for until a user could use them.

Always holds: ready means ready from outside: Deployments have their pods, and every ``type: LoadBalancer`` Service has an
address that really answers this host, by HTTP where it is HTTP. An announced address is on the machines' own network, which
this host need not reach: there the address is enough.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from moyai.core.clock import Clock
from moyai.core.errors import NotFound, Terminal, UsageError
from moyai.core.progress import Progress
from moyai.core.reading import read_yaml
from moyai.kube.objects import Service, parse_deployment, parse_service
from moyai.kube.objects.meta import part, text
from moyai.kube.quick import KubeApi
from moyai.kube.resources import DEPLOYMENTS, SERVICES, Json
from moyai.lifecycle import waits
from moyai.linux.process import run
from moyai.plan.announce.metallb_words import FROM_POOL

DEPLOYMENTS_TIMEOUT = 300.0
ADDRESS_TIMEOUT = 180.0
ANSWER_TIMEOUT = 120.0
_MANIFESTS = "Kubernetes manifests"


@dataclass(frozen=True)
class Awaited:
    """What of the manifests is waited for, as (namespace, name)."""

    deployments: tuple[tuple[str, str], ...] = ()
    services: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class AppliedObject:
    """``name``: with the kind (``deployment.apps/web``). ``outcome``: kubectl's word for what became of it (``configured``)."""

    name: str
    outcome: str

    @property
    def changed(self) -> bool:
        return self.outcome != "unchanged"

    def __str__(self) -> str:
        return f"{self.name} {self.outcome}".rstrip()


@dataclass(frozen=True)
class ServiceEndpoint:
    """Where a Service answers. ``url`` is meant for people: http://ADDRESS[:PORT]/ for what speaks HTTP, else ADDRESS:PORT."""

    service: str
    url: str


def read(files: Sequence[Path]) -> Awaited:
    """Which Deployments and Services the manifests hold. UsageError for what is no manifest; nothing is sent."""
    deployments: list[tuple[str, str]] = []
    services: list[tuple[str, str]] = []
    for file in files:
        for item in _objects(file):
            meta = part(item, "metadata")
            place = (text(meta, "namespace") or "default", text(meta, "name"))
            if item["kind"] == "Deployment":
                deployments.append(place)
            if item["kind"] == "Service" and part(item, "spec").get("type") == "LoadBalancer":
                services.append(place)
    return Awaited(tuple(deployments), tuple(services))


def _objects(file: Path) -> Iterable[Json]:
    for document in read_yaml(file, should=_MANIFESTS):
        item = cast("Json", document) if isinstance(document, dict) else {}
        if not isinstance(item.get("kind"), str) or not isinstance(item.get("apiVersion"), str):
            raise UsageError(f"{file.name}: a document without apiVersion and kind, should be {_MANIFESTS}")
        _check(file.name, item)
        yield item


def _check(file: str, item: Json) -> None:
    """What is waited for must be findable; all else is the API server's to judge. A List has no metadata of its own."""
    kind = item["kind"]
    awaited = kind in ("Deployment", "Service")
    for field in ("metadata", "spec") if awaited else ("metadata",):
        if not isinstance(item.get(field) or {}, dict):
            raise UsageError(f"{file}: {kind}: {field} is no mapping, should be {_MANIFESTS}")
    meta = part(item, "metadata")
    for field in ("name", "namespace"):
        if not isinstance(meta.get(field, ""), str) or (field == "name" and awaited and not meta.get(field)):
            raise UsageError(f"{file}: {kind}: metadata.{field} is no text, should be the object's {field}")


def apply(files: Sequence[Path], *, kubectl: Path, kubeconfig: Path) -> list[AppliedObject]:
    """Apply the manifests; returns what kubectl says of each object."""
    words: list[str | Path] = [kubectl, "--kubeconfig", kubeconfig, "apply"]
    for file in files:
        words += ["-f", file]
    return applied_objects(run(words, timeout=120).stdout)


def applied_objects(text: str) -> list[AppliedObject]:
    """kubectl's output: a line an object, ``deployment.apps/web created``. Names of objects have no spaces."""
    words = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [AppliedObject(name, outcome[0] if outcome else "") for name, *outcome in words]


def wait(api: KubeApi, wanted: Awaited, *, clock: Clock, progress: Progress) -> list[ServiceEndpoint]:
    """Until everything of ``wanted`` is there and answers; returns where."""
    abort = threading.Event()

    def late(seconds: float, what: str) -> Terminal:
        return Terminal(f"waited {seconds:.0f} s for {what}", hint="`moyai kubectl describe` says more")

    waits.wait(
        lambda: _missing_deployment(api, wanted),
        clock=clock,
        abort=abort,
        progress=progress,
        timeout=DEPLOYMENTS_TIMEOUT,
        failed=lambda missing: late(DEPLOYMENTS_TIMEOUT, missing),
        interval=0.3,
    )
    waits.wait(
        lambda: _missing_address(api, wanted),
        clock=clock,
        abort=abort,
        progress=progress,
        timeout=ADDRESS_TIMEOUT,
        failed=lambda missing: late(ADDRESS_TIMEOUT, missing),
        interval=0.3,
    )
    found: list[ServiceEndpoint] = []
    for place in wanted.services:
        service = _service(api, place)
        address, ports = (service.address, service.tcp_ports) if service else ("", ())
        announced = service is not None and FROM_POOL in service.annotations
        for port in ports:
            url = f"http://{address}/" if port == 80 else f"{address}:{port}"
            found.append(ServiceEndpoint("/".join(place), url))
            if announced:
                continue
            waits.wait(
                lambda address=address, port=port: "" if answers(address, port) else f"{address}:{port} to answer",
                clock=clock,
                abort=abort,
                progress=progress,
                timeout=ANSWER_TIMEOUT,
                failed=lambda missing: late(ANSWER_TIMEOUT, missing),
                interval=0.2,
            )
    return found


def _missing_deployment(api: KubeApi, wanted: Awaited) -> str:
    for namespace, name in wanted.deployments:
        found = parse_deployment(api.get(DEPLOYMENTS, name, namespace=namespace))
        if not found.done:
            return f"deployment {name}: {found.available} of {found.wanted} pods are available"
    return ""


def _missing_address(api: KubeApi, wanted: Awaited) -> str:
    for place in wanted.services:
        service = _service(api, place)
        if service is None or not service.address:
            return f"service {'/'.join(place)} to get an address"
    return ""


def _service(api: KubeApi, place: tuple[str, str]) -> Service | None:
    try:
        return parse_service(api.get(SERVICES, place[1], namespace=place[0]))
    except NotFound:
        return None


def answers(address: str, port: int, *, timeout: float = 3.0) -> bool:
    """Whether something behind the load balancer answers: HTTP, or at least a connection that stays open and is not HTTP.

    A load balancer accepts connections before it has a backend and then closes them at once: that is no answer.
    """
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", "/", headers={"User-Agent": "moyai"})
        return connection.getresponse().status < 500
    except http.client.RemoteDisconnected:
        return False
    except http.client.BadStatusLine:
        return True
    except TimeoutError:
        return _stays_open(address, port)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stays_open(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=2) as stream:
            stream.settimeout(1)
            try:
                return stream.recv(1) != b""
            except TimeoutError:
                return True
    except OSError:
        return False

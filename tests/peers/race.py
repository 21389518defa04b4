"""Services of type LoadBalancer with each controller on one cluster: 1, 8 and 50 asked for at once, and deleted at once.

For each count both controllers take their turn right after each other, so that changes of the machine's load meet both. The
clock of a creation runs from the first request until every Service has its address, and until every address answers over HTTP.
The clock of a deletion runs until no Service is left, and no load balancer, floating IP or security group of theirs.
"""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import openstack
import yaml

from moyai.kube.objects import parse_deployment, parse_service
from moyai.kube.quick import KubeApi
from moyai.kube.resources import DEPLOYMENTS, SERVICES, Json

_EXAMPLE = Path(__file__).parents[2] / "examples/quickstart/nginx.yaml"
_SPACE = "default"
_EVERY = 0.2
#: A controller that makes fifty one after the other needs a quarter of an hour on two busy cores.
_SECONDS = 1800.0
_TOGETHER = 16


@dataclass(frozen=True)
class Lap:
    """One controller, ``count`` Services at once. Seconds; ``load``: the machine's load average at the end of the lap."""

    controller: str
    count: int
    addresses: float
    answers: float
    gone: float
    load: float

    def data(self) -> dict[str, Any]:
        return {name: round(value, 2) if isinstance(value, float) else value for name, value in asdict(self).items()}


class Race:
    """``cloud``: an entry of clouds.yaml, whose user owns the cluster. No other Service of the cluster has a load balancer."""

    def __init__(self, kubeconfig: Path, cloud: str) -> None:
        self._api = KubeApi.from_file(kubeconfig)
        self._cloud: Any = openstack.connect(cloud=cloud)
        self._service: Json = {}
        self._before = self._objects()

    def prepare(self) -> None:
        """The quickstart's pods, all running."""
        documents: list[Json] = list(yaml.safe_load_all(_EXAMPLE.read_text()))
        deployment = next(item for item in documents if item["kind"] == "Deployment")
        self._service = next(item for item in documents if item["kind"] == "Service")
        self._api.create(DEPLOYMENTS, deployment, namespace=_SPACE)
        name = deployment["metadata"]["name"]
        _until("the pods", lambda: parse_deployment(self._api.get(DEPLOYMENTS, name, namespace=_SPACE)).done)

    def lap(self, controller: str, count: int) -> Lap:
        """``controller`` is the name of the one that runs."""
        names = [f"race-{number}" for number in range(count)]
        with ThreadPoolExecutor(min(count, _TOGETHER)) as threads:
            began = time.monotonic()
            list(threads.map(self._create, names))
            known = self._addresses(began, count)
            answered = self._answers(known, began, threads=threads)
            addresses = time.monotonic() - began if not known else max(known.values())
            began = time.monotonic()
            list(threads.map(self._delete, names))
            _until("the Services' end", lambda: not self._existing())
            _until("the end of what they had in the cloud", lambda: self._objects() <= self._before)
            gone = time.monotonic() - began
        return Lap(controller, count, addresses, answered, gone, os.getloadavg()[0])

    def _create(self, name: str) -> None:
        self._api.create(SERVICES, {**self._service, "metadata": {"name": name}}, namespace=_SPACE)

    def _delete(self, name: str) -> None:
        self._api.delete(SERVICES, name, namespace=_SPACE)

    def _existing(self) -> list[Json]:
        return [one for one in self._api.list(SERVICES, namespace=_SPACE) if one["metadata"]["name"].startswith("race-")]

    def _addresses(self, began: float, count: int) -> dict[str, float]:
        """Address → seconds until it was in the Service's status."""
        known: dict[str, float] = {}

        def look() -> bool:
            for one in self._existing():
                if (address := parse_service(one).address) and address not in known:
                    known[address] = time.monotonic() - began
            return len(known) == count

        _until(f"the addresses of {count} Services", look)
        return known

    def _answers(self, known: Mapping[str, float], began: float, *, threads: ThreadPoolExecutor) -> float:
        silent = set(known)

        def look() -> bool:
            asked = sorted(silent)
            silent.difference_update(
                address for address, answers in zip(asked, threads.map(_answer, asked), strict=True) if answers
            )
            return not silent

        _until(f"{len(silent)} addresses to answer", look)
        return time.monotonic() - began

    def _objects(self) -> frozenset[str]:
        """What Services have in the cloud: load balancers, floating IPs, security groups, by id."""
        lists: list[Callable[[], Any]] = [
            self._cloud.load_balancer.load_balancers,
            self._cloud.network.ips,
            self._cloud.network.security_groups,
        ]
        return frozenset(one.id for look in lists for one in look())


def _until(what: str, holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _SECONDS
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {_SECONDS:.0f} s for {what}")
        time.sleep(_EVERY)


def _answer(address: str) -> bool:
    """Whether an HTTP request is answered with 200 within a second."""
    connection = http.client.HTTPConnection(address, 80, timeout=1.0)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

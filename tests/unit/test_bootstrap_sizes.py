"""What does not fit into a server's user data, metadata, tags or names is refused before anything is made."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moyai.bootstrap import sizes
from moyai.bootstrap.machine import server_content
from moyai.bootstrap.user_data import encoded_size
from moyai.core.errors import UsageError
from moyai.core.ids import is_dns_label
from moyai.lifecycle import up as building
from moyai.lifecycle.record import Record
from moyai.spec.load import parse, validate
from moyai.spec.model import MAX_CLUSTER_NAME, MAX_POOL_NAME, Cluster
from tests.unit.lifecycle_world import World

ALPHABET = string.ascii_letters + string.digits


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def _words(count: int, length: int) -> list[str]:
    """Text that does not pack."""
    source = random.Random(count * length)
    return ["".join(source.choices(ALPHABET, k=length)) for _ in range(count)]


def _pool(labels: int = 0, taints: int = 0) -> Cluster:
    pool: dict[str, Any] = {
        "name": "big",
        "labels": dict(zip(_words(labels, 51), _words(labels, 59), strict=True)),
        "taints": [
            {"key": key, "value": value, "effect": "NoSchedule"}
            for key, value in zip(_words(taints, 52), _words(taints, 60), strict=True)
        ],
    }
    return validate({"spec": {"nodePools": [{}, pool]}}, source="x")


@pytest.mark.parametrize(
    ("labels", "taints", "field", "takes"),
    [
        (900, 0, "labels", r"\(900 labels take \d{5,6}\): should be fewer or shorter labels"),
        (0, 900, "taints", r"\(900 taints take \d{5,6}\): should be fewer or shorter taints"),
        (450, 100, "labels", r"\(450 labels take \d{5}, 100 taints take \d{5}\)"),
    ],
)
def test_a_pool_whose_labels_or_taints_do_not_fit(world: World, labels: int, taints: int, field: str, takes: str) -> None:
    def preview(cluster: Cluster) -> object:
        return building.preview(cluster, world.cloud, paths=world.paths)

    calls: tuple[Callable[[Cluster], object], ...] = (preview, world.up)
    for call in calls:
        with pytest.raises(UsageError) as caught:
            call(_pool(labels, taints))
        message = str(caught.value)
        assert message.startswith(f"spec.nodePools[1].{field}: user data of this pool's nodes would have ")
        assert re.search(takes, message)
    assert world.all_names() == []
    assert Record.names(world.paths) == []


def test_what_a_plan_accepts_is_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the plan takes at the edge, the cloud takes too; and the edge is near the limit, not far below."""
    fitting, refused = 100, 900
    while refused - fitting > 1:
        middle = (fitting + refused) // 2
        try:
            building.preview(_pool(middle), world.cloud, paths=world.paths)
            fitting = middle
        except UsageError:
            refused = middle
    made: list[int] = []

    def measured(step: Any, facts: Any, **more: Any) -> Any:
        content = server_content(step, facts, **more)
        made.append(encoded_size(content.user_data))
        return content

    monkeypatch.setattr(building, "server_content", measured)
    world.up(_pool(fitting))
    assert len(made) == 5
    limit = world.cloud.kind.user_data_limit
    assert limit - 2000 < max(made) <= limit


def test_pools_that_certainly_fit_cost_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[str] = []

    def counting(step: Any, facts: Any, **more: Any) -> Any:
        rendered.append(step.node.name)
        return server_content(step, facts, **more)

    monkeypatch.setattr(sizes, "server_content", counting)
    building.preview(parse("spec: {nodePools: [{name: a}, {name: b}, {name: c}]}"), world.cloud, paths=world.paths)
    assert rendered == ["quickstart-control-plane-0"]


def test_the_longest_names_fit_everywhere(world: World) -> None:
    name, pool = "c" * MAX_CLUSTER_NAME, "p" * MAX_POOL_NAME
    network = "{nodeCIDR: 10.8.0.0/20, podCIDR: 10.128.0.0/12, nodePodPrefix: 28, maxRoutes: 600}"
    spec = parse(f"{{metadata: {{name: {name}}}, spec: {{network: {network}, nodePools: [{{name: {pool}, replicas: 1}}]}}}}")
    assert is_dns_label(f"{name}-{pool}-499"), "a node's name is its host name"
    world.up(spec)
    store = world.store
    servers = [one for one in store.servers if one.metadata]
    assert len(servers) == 2
    for server in servers:
        assert all(len(key) <= 255 and len(value) <= 255 for key, value in server.metadata.items()), "Nova's limit"
    tagged = [*store.networks, *store.subnets, *store.routers, *store.ports, *store.groups, *store.floating_ips, *servers]
    assert all(len(tag) <= 60 for one in tagged for tag in one.tags), "Neutron's and Nova's limit"
    assert all(len(name) <= 255 for name in world.all_names())

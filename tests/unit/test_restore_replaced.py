"""A cluster whose control planes were replaced is restored, and its control planes can be replaced again."""

from __future__ import annotations

from pathlib import Path

import pytest

from moyai.plan.nodes import address_of
from tests.unit.lifecycle_world import World
from tests.unit.test_restore import back_up, lose, record, restore, world_at

FIRST = "quickstart-control-plane-0"


def addresses_fit(world: World) -> None:
    """Each machine has the address that its user data names."""
    nodes, ports = record(world).cluster.spec.network.node_cidr, {port.name: port for port in world.store.ports}
    for name, kept in record(world).allocations.items():
        assert ports[name].fixed_ips == (str(address_of(nodes, kept.index)),), name


@pytest.mark.exhaustive
@pytest.mark.parametrize("lost", [("control-plane", "workers"), ("control-plane",)], ids=["all", "planes"])
@pytest.mark.parametrize(
    ("replicas", "endpoint"), [(1, "vrrp"), (3, "vrrp"), (5, "vrrp"), (1, "load-balancer"), (3, "load-balancer")]
)
def test_control_planes_are_replaced_before_a_backup_and_after_its_restore(
    replicas: int, endpoint: str, lost: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ports of the lost machines are still there, under names that the next machines get."""
    spec = f"spec: {{controlPlane: {{replicas: {replicas}, endpoint: {endpoint}}}, nodePools: [{{replicas: 1}}]}}"
    world = world_at(tmp_path / "world", monkeypatch)
    world.up(spec)
    world.up(spec, replaced=FIRST)
    back_up(world)
    lose(world, *lost)
    restore(world)
    etcd = world.kube().etcd
    for _ in range(3):
        addresses_fit(world)
        world.up(spec, replaced=min(etcd.members))
        assert not etcd.broken
        assert len(etcd.members) == replicas
    addresses_fit(world)
    assert not world.up(spec).changed

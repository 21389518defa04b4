"""Load balancers: made as a tree, changed piece by piece, busy after each change."""

from __future__ import annotations

import pytest

from moyai.cloud.load_balancers import (
    BalancerState,
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
from moyai.core.errors import Conflict, NotFound, Terminal
from tests.contract.site import Site

NOBODY = "00000000-0000-4000-8000-00000000dead"


def settled(site: Site, balancer_id: str) -> LoadBalancer:
    """The tree, once it takes changes again."""
    balancers = site.cloud.load_balancers
    site.until(lambda: balancers.head(balancer_id).state is not BalancerState.BUSY, 120)
    return balancers.get(balancer_id)


def changed(site: Site, balancer_id: str) -> LoadBalancer:
    """As ``settled``, after a change that has to have made it busy."""
    found = settled(site, balancer_id)
    assert found.state is BalancerState.ACTIVE
    return found


def tree(site: Site) -> LoadBalancer:
    members = tuple(Member(f"10.77.0.{number}", 30080, site.subnet.id, name=f"m{number}") for number in (11, 12))
    monitor = Monitor(CheckType.TCP, delay=5, timeout=3, max_retries=1, max_retries_down=3)
    pool = Pool("pool-80", TrafficProtocol.TCP, BalancingAlgorithm.ROUND_ROBIN, members, monitor)
    listener = Listener("listener-80", TrafficProtocol.TCP, 80, pool, allowed_cidrs=("10.0.0.0/8",))
    return LoadBalancer(f"{site.uid}-lb", vip_subnet_id=site.subnet.id, tags=(site.tag,), listeners=(listener,))


class LoadBalancers:
    def test_a_tree_is_made_in_one_call_changed_in_pieces_and_deleted_whole(self, site: Site) -> None:
        balancers = site.cloud.load_balancers
        made = balancers.create(tree(site))
        assert made.state is BalancerState.BUSY
        assert made.listeners == ()
        assert made.vip_port_id
        with pytest.raises(Conflict):
            balancers.delete(made.id)
        found = settled(site, made.id)
        assert found.state is BalancerState.ACTIVE
        assert [one.id for one in balancers.load_balancers(tag=site.tag)] == [made.id]
        assert [one.id for one in balancers.load_balancers(name=f"{site.uid}-lb")] == [made.id]
        assert (found.vip_subnet_id, found.vip_port_id) == (site.subnet.id, made.vip_port_id)
        assert found.provider in balancers.providers()
        (listener,) = found.listeners
        assert (listener.protocol, listener.port, listener.allowed_cidrs) == (TrafficProtocol.TCP, 80, ("10.0.0.0/8",))
        pool = listener.pool
        assert pool
        assert {one.key for one in pool.members} == {("10.77.0.11", 30080), ("10.77.0.12", 30080)}
        assert pool.monitor
        assert (pool.monitor.type, pool.monitor.delay) == (CheckType.TCP, 5)

        balancers.set_members(pool.id, [Member("10.77.0.13", 30080, site.subnet.id, name="m13")])
        changed(site, made.id)
        with pytest.raises(Conflict):
            balancers.create_listener(made.id, Listener("again", TrafficProtocol.TCP, 80))
        second = balancers.create_listener(made.id, Listener("listener-81", TrafficProtocol.TCP, 81))
        changed(site, made.id)
        other = balancers.create_pool(
            Pool("pool-81", TrafficProtocol.TCP, BalancingAlgorithm.ROUND_ROBIN), listener_id=second.id
        )
        found = changed(site, made.id)
        pools = {one.port: one.pool for one in found.listeners}
        assert pools[80]
        assert [one.key for one in pools[80].members] == [("10.77.0.13", 30080)]
        assert pools[81]
        assert (pools[81].id, pools[81].members) == (other.id, ())
        balancers.delete_listener(second.id)
        found = changed(site, made.id)
        assert [one.id for one in found.loose_pools] == [other.id]
        balancers.delete_pool(other.id)
        found = changed(site, made.id)
        assert not found.loose_pools
        balancers.delete_listener(second.id)
        balancers.delete_pool(other.id)

        balancers.delete(made.id)
        site.until(lambda: not balancers.load_balancers(tag=site.tag), 120)
        balancers.delete(made.id)
        ports = site.cloud.networks.ports
        site.until(lambda: made.vip_port_id not in {one.id for one in ports(network_id=site.network.id)}, 30)

    def test_its_parts_are_changed_where_they_are(self, site: Site) -> None:
        balancers = site.cloud.load_balancers
        made = balancers.create(tree(site))
        (listener,) = settled(site, made.id).listeners
        pool = listener.pool
        assert pool
        assert pool.monitor
        balancers.update(made.id, name=f"{site.uid}-renamed", description="changed", tags=[site.tag, "other=1"])
        found = changed(site, made.id)
        assert (found.name, found.description) == (f"{site.uid}-renamed", "changed")
        assert set(found.tags) == {site.tag, "other=1"}

        balancers.update_listener(listener.id, {"allowed_cidrs": ("10.1.0.0/16",), "timeout_client_data_ms": 60_000})
        altered = changed(site, made.id).listeners[0]
        assert (altered.allowed_cidrs, altered.timeout_client_data_ms) == (("10.1.0.0/16",), 60_000)
        assert altered.name == listener.name
        algorithm, persistence = BalancingAlgorithm.LEAST_CONNECTIONS, SessionPersistence.SOURCE_ADDRESS
        balancers.update_pool(pool.id, {"algorithm": algorithm, "persistence": persistence})
        pool = changed(site, made.id).listeners[0].pool
        assert pool
        assert (pool.algorithm, pool.persistence, len(pool.members)) == (algorithm, persistence, 2)

        assert pool.monitor
        balancers.update_monitor(pool.monitor.id, {"delay": 10})
        pool = changed(site, made.id).listeners[0].pool
        assert pool
        assert pool.monitor
        assert (pool.monitor.delay, pool.monitor.timeout) == (10, 3)
        balancers.delete_monitor(pool.monitor.id)
        changed(site, made.id)
        balancers.delete_monitor(pool.monitor.id)
        again = balancers.create_monitor(pool.id, Monitor(CheckType.TCP, delay=7, timeout=3, max_retries=1))
        pool = changed(site, made.id).listeners[0].pool
        assert pool
        assert pool.monitor
        assert (pool.monitor.id, pool.monitor.delay) == (again.id, 7)

        if _may_fail_over(site, made.id):
            found = changed(site, made.id)
        assert (found.vip_port_id, found.vip_address) == (made.vip_port_id, made.vip_address), "its address stays"
        balancers.delete(made.id)
        site.until(lambda: made.id not in {one.id for one in balancers.load_balancers(tag=site.tag)}, 120)

    def test_one_that_is_not_there(self, site: Site) -> None:
        balancers = site.cloud.load_balancers
        with pytest.raises(NotFound):
            balancers.head(NOBODY)
        with pytest.raises(NotFound):
            balancers.get(NOBODY)
        with pytest.raises(NotFound):
            balancers.create_listener(NOBODY, Listener("none", TrafficProtocol.TCP, 80))
        with pytest.raises(NotFound):
            balancers.update(NOBODY, name="none")
        with pytest.raises(NotFound):
            balancers.update_listener(NOBODY, {"name": "none"})
        with pytest.raises(NotFound):
            balancers.update_pool(NOBODY, {"name": "none"})
        with pytest.raises(NotFound):
            balancers.update_monitor(NOBODY, {"delay": 10})
        with pytest.raises(NotFound):
            balancers.create_monitor(NOBODY, Monitor(CheckType.TCP, delay=7, timeout=3, max_retries=1))
        balancers.delete(NOBODY)
        balancers.delete_listener(NOBODY)
        balancers.delete_pool(NOBODY)
        balancers.delete_monitor(NOBODY)


def _may_fail_over(site: Site, balancer_id: str) -> bool:
    """Fail the load balancer over; False where the account may not, which the cloud says by a refusal."""
    try:
        site.cloud.load_balancers.failover(balancer_id)
    except Terminal:
        return False
    return True

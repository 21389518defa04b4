# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
# (pyright takes this folder for OpenStack's package of the same name)
"""Octavia's database for the load-balancer daemon: it reads the desired state and writes reports.

Only this module and the provider driver know Octavia's internals. The module reads the provisioning status of every object,
which Octavia's driver library hides. The status says which work is to be done. So the database itself is the queue, and no
message can be lost. Reports go through Octavia's `DriverUpdater`, the code behind the driver library's status socket (quotas,
rows).
"""

from __future__ import annotations

import datetime
import logging
import time
from dataclasses import dataclass
from typing import Any

from octavia.api.drivers.driver_agent.driver_updater import DriverUpdater
from octavia.common import clients, data_models
from octavia.db import api as db_api
from octavia.db import models, repositories
from octavia.statistics import stats_base
from openstack import exceptions as sdk_exceptions

from moyai.linux.netns import LinkAddress
from moyai.localcloud.drivers.octavia import balancer_tree, provider_names
from moyai.localcloud.drivers.octavia.joint_reads import JointReads
from moyai.localcloud.drivers.octavia.vip_link import MadePort, Plug, PortBefore

LOG = logging.getLogger(__name__)
DEVICE_OWNER = "Octavia"


@dataclass(frozen=True)
class PoolPlace:
    """Where a pool belongs: its load balancer, the VIPs, and the pool's protocol."""

    balancer_id: str
    vips: tuple[str, ...]
    protocol: str


@dataclass(frozen=True)
class ListenerPlace:
    """Where a listener belongs: its load balancer, and the listener's protocol."""

    balancer_id: str
    protocol: str


class OctaviaDatabase:
    """Reads and writes Octavia's database and asks Neutron. Safe to use from several threads."""

    def __init__(self) -> None:
        # load balancers that are made side by side mostly have their VIPs in one subnet
        self._reads = JointReads()

    def pending(self) -> list[str]:
        """The load balancers of ours that wait for something to be done."""
        balancer = models.LoadBalancer
        with db_api.session().begin() as session:
            rows = session.query(balancer.id).filter(
                balancer.provider.in_(provider_names.ALL), balancer.provisioning_status.like("PENDING_%")
            )
            return [row.id for row in rows]

    def everything(self) -> list[str]:
        """All load balancers of ours that are not deleted."""
        balancer = models.LoadBalancer
        with db_api.session().begin() as session:
            rows = session.query(balancer.id).filter(
                balancer.provider.in_(provider_names.ALL), balancer.provisioning_status != balancer_tree.DELETED
            )
            return [row.id for row in rows]

    def committed(self, balancer_id: str) -> str | None:
        """The load balancer's provisioning status once nobody is in the midst of changing it; None when it does not exist.

        A locking read: it waits for the API's transaction, which calls the driver before it commits. So nobody has to poll,
        and a rolled-back creation is known for certain.
        """
        with db_api.session().begin() as session:
            query = session.query(models.LoadBalancer.provisioning_status).filter_by(id=balancer_id)
            row = query.with_for_update(read=True).first()
        return row.provisioning_status if row is not None else None

    def load(self, balancer_id: str) -> balancer_tree.LoadBalancer | None:
        """The whole tree, read in one transaction; None when it does not exist or is deleted."""
        with db_api.session().begin() as session:
            row = session.get(models.LoadBalancer, balancer_id)
            if row is None or row.provider not in provider_names.ALL or row.provisioning_status == balancer_tree.DELETED:
                return None
            return _balancer(row)

    def place_of_pool(self, pool_id: str) -> PoolPlace | None:
        """Where a pool belongs; None when there is no such pool."""
        with db_api.session().begin() as session:
            row = session.get(models.Pool, pool_id)
            if row is None:
                return None
            balancer = row.load_balancer
            vips = [balancer.vip, *balancer.additional_vips]
            return PoolPlace(row.load_balancer_id, tuple(one.ip_address for one in vips if one.ip_address), row.protocol)

    def place_of_listener(self, listener_id: str) -> ListenerPlace | None:
        """Where a listener belongs; None when there is no such listener."""
        with db_api.session().begin() as session:
            row = session.get(models.Listener, listener_id)
            return ListenerPlace(row.load_balancer_id, row.protocol) if row is not None else None

    def place_of_policy(self, policy_id: str) -> ListenerPlace | None:
        """Where an L7 policy's listener belongs; None when there is no such policy."""
        with db_api.session().begin() as session:
            row = session.get(models.L7Policy, policy_id)
            return ListenerPlace(row.listener.load_balancer_id, row.listener.protocol) if row is not None else None

    def report(self, status: dict[str, list[dict[str, str]]]) -> None:
        """Write statuses: by kind, a list of id, ``provisioning_status``, ``operating_status``. RuntimeError when refused."""
        answer = DriverUpdater().update_loadbalancer_status(status)
        if answer["status_code"] != 200:
            raise RuntimeError(f"Octavia refuses a status: {answer.get('fault_string')}")

    def deleted(self, balancer_id: str) -> None:
        """Note that it is gone, with everything in it; nothing happens when that is noted already.

        One transaction instead of one for each object: `DriverUpdater` reads the whole tree again for each of them.
        """
        repository = repositories.Repositories()
        with db_api.session().begin() as session:
            row = session.get(models.LoadBalancer, balancer_id)
            if row is None or row.provisioning_status == balancer_tree.DELETED:
                return
            members = [member for pool in row.pools for member in pool.members]
            monitors = [pool.health_monitor for pool in row.pools if pool.health_monitor]
            # the quotas first, as the API locks them before a load balancer
            for kind, rows in (
                (data_models.LoadBalancer, [row]),
                (data_models.Listener, row.listeners),
                (data_models.Pool, row.pools),
                (data_models.Member, members),
                (data_models.HealthMonitor, monitors),
            ):
                if rows:
                    repository.decrement_quota(session, kind, row.project_id, quantity=len(rows))
            for policy in [policy for listener in row.listeners for policy in listener.l7policies]:
                # Octavia counts only those that were made one by one; one at a time, its count stops at nothing
                for kind in (data_models.L7Policy, *[data_models.L7Rule] * len(policy.l7rules)):
                    repository.decrement_quota(session, kind, row.project_id)
            for one in (*row.listeners, *row.pools):
                session.delete(one)
            row.provisioning_status = balancer_tree.DELETED

    def statistics(self, gains: list[dict[str, int | str]]) -> None:
        """Add what listeners gained to their statistics."""
        objects = [
            data_models.ListenerStatistics(
                listener_id=one["id"], received_time=time.time(), **{key: value for key, value in one.items() if key != "id"}
            )
            for one in gains
        ]
        stats_base.update_stats_via_driver(objects, deltas=True)

    def plug(self, port_id: str, *, made: MadePort | None = None) -> Plug:
        """Ask Neutron where the VIP's port is to be plugged. ``made``: what Neutron said of it a moment ago."""
        network = neutron()
        if made is None or made.port_id != port_id:
            port = network.get_port(port_id)
            fixed_ips = tuple((one["subnet_id"], one["ip_address"]) for one in port.fixed_ips)
            made = MadePort(port.id, port.mac_address, port.network_id, fixed_ips)
        addresses = []
        for subnet_id, address in made.fixed_ips:
            subnet = self._reads.fresh(subnet_id, network.get_subnet)
            routes = tuple((route["destination"], route["nexthop"]) for route in subnet.host_routes or [])
            addresses.append(LinkAddress(address, int(subnet.cidr.split("/")[1]), subnet.gateway_ip, routes))
        mtu = self._reads.fresh(made.network_id, network.get_network).mtu or 1500
        return Plug(made.port_id, made.mac, made.network_id, mtu, tuple(addresses))

    def release_port(
        self, balancer_id: str, port_id: str, *, taken: PortBefore | None = None, made: MadePort | None = None
    ) -> None:
        """Delete the VIP's port if the driver made it; a user's own port becomes again what it was (``taken``)."""
        network = neutron()
        if made is not None and made.port_id == port_id:
            network.delete_port(port_id, ignore_missing=True)
            return
        try:
            port = network.get_port(port_id)
        except sdk_exceptions.NotFoundException:
            return
        if port.name == vip_port_name(balancer_id) and port.device_owner == DEVICE_OWNER:
            network.delete_port(port_id, ignore_missing=True)
        elif port.device_id == device_id(balancer_id):
            before = taken or PortBefore(secured=True, groups=())
            network.update_port(
                port_id,
                device_id="",
                device_owner="",
                binding_host_id="",
                is_port_security_enabled=before.secured,
                **({"security_group_ids": list(before.groups)} if before.secured and before.groups else {}),
            )

    def tidy(self, host: str) -> None:
        """Delete VIP ports whose load balancer never came to be (Octavia rolled it back), and rows long deleted."""
        network = neutron()
        old = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
        for port in network.ports(device_owner=DEVICE_OWNER):
            balancer_id = (port.device_id or "").removeprefix("lb-")
            made = datetime.datetime.fromisoformat(port.created_at)
            if port.name != vip_port_name(balancer_id) or port.binding_host_id != host or made > old:
                continue
            with db_api.session().begin() as session:
                known = session.get(models.LoadBalancer, balancer_id)
                wanted = known is not None and known.provisioning_status != balancer_tree.DELETED
            if not wanted:
                LOG.warning("VIP port %s belongs to no load balancer: deleted", port.id)
                network.delete_port(port.id, ignore_missing=True)
        rows = repositories.LoadBalancerRepository()
        with db_api.session().begin() as session:
            for balancer_id in rows.get_all_deleted_expiring(session, exp_age=datetime.timedelta(days=7)):
                rows.delete(session, id=balancer_id)


def neutron() -> Any:
    """Neutron's API, with this process's login.

    A login keeps the catalog of its moment for as long as its token lives. A process that logged in before Neutron was in the
    catalog logs in again.
    """
    connection = clients.NeutronAuth.get_neutron_client()
    auth, interface = connection.session.auth, connection.config.get_interface("network")
    catalog = auth.get_access(connection.session).service_catalog
    if not catalog.get_endpoint_data_list(service_type="network", interface=interface):
        LOG.warning("the catalog of this login lacks Neutron: logging in again")
        auth.invalidate()
        clients.NeutronAuth.neutron_client = None
        connection = clients.NeutronAuth.get_neutron_client()
    return connection.network


def vip_port_name(balancer_id: str) -> str:
    """The name of a VIP port that the driver made, as Octavia's own drivers call it."""
    return f"octavia-lb-{balancer_id}"


def device_id(balancer_id: str) -> str:
    """The device that a VIP port belongs to, as Octavia's own drivers write it."""
    return f"lb-{balancer_id}"


def _base(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "status": row.provisioning_status,
        "operating": row.operating_status,
        "enabled": bool(row.enabled),
    }


def _balancer(row: Any) -> balancer_tree.LoadBalancer:
    return balancer_tree.LoadBalancer(
        **_base(row),
        project_id=row.project_id,
        vip_address=row.vip.ip_address,
        vip_port_id=row.vip.port_id,
        vip_subnet_id=row.vip.subnet_id,
        vip_network_id=row.vip.network_id,
        additional_vips=tuple(one.ip_address for one in row.additional_vips),
        listeners=tuple(_listener(one) for one in row.listeners),
        pools=tuple(_pool(one) for one in row.pools),
    )


def _listener(row: Any) -> balancer_tree.Listener:
    limit = row.connection_limit
    headers = row.insert_headers or {}
    return balancer_tree.Listener(
        **_base(row),
        protocol=row.protocol,
        port=row.protocol_port,
        pool_id=row.default_pool_id,
        policies=tuple(_policy(one) for one in row.l7policies),
        connection_limit=limit if limit is not None and limit >= 0 else None,
        allowed_cidrs=tuple(sorted(one.cidr for one in row.allowed_cidrs)),
        insert_headers=tuple(sorted(name for name, value in headers.items() if str(value).lower() == "true")),
        timeout_client_data=row.timeout_client_data or 50000,
        timeout_member_connect=row.timeout_member_connect or 5000,
        timeout_member_data=row.timeout_member_data or 50000,
        timeout_tcp_inspect=row.timeout_tcp_inspect or 0,
    )


def _policy(row: Any) -> balancer_tree.L7Policy:
    return balancer_tree.L7Policy(
        **_base(row),
        action=row.action,
        position=row.position,
        rules=tuple(_rule(one) for one in row.l7rules),
        redirect_pool_id=row.redirect_pool_id,
        redirect_url=row.redirect_url,
        redirect_prefix=row.redirect_prefix,
        redirect_http_code=row.redirect_http_code,
    )


def _rule(row: Any) -> balancer_tree.L7Rule:
    return balancer_tree.L7Rule(
        **_base(row), type=row.type, compare_type=row.compare_type, value=row.value, key=row.key, invert=bool(row.invert)
    )


def _pool(row: Any) -> balancer_tree.Pool:
    how = row.session_persistence
    return balancer_tree.Pool(
        **_base(row),
        protocol=row.protocol,
        algorithm=row.lb_algorithm,
        members=tuple(_member(one) for one in row.members),
        monitor=_monitor(row.health_monitor) if row.health_monitor else None,
        persistence=balancer_tree.Persistence(
            type=how.type,
            cookie_name=how.cookie_name,
            timeout=how.persistence_timeout,
            granularity=how.persistence_granularity,
        )
        if how
        else None,
    )


def _member(row: Any) -> balancer_tree.Member:
    return balancer_tree.Member(
        **_base(row),
        address=row.ip_address,
        port=row.protocol_port,
        weight=1 if row.weight is None else row.weight,
        backup=bool(row.backup),
        monitor_address=row.monitor_address,
        monitor_port=row.monitor_port,
    )


def _monitor(row: Any) -> balancer_tree.Monitor:
    return balancer_tree.Monitor(
        **_base(row),
        type=row.type,
        delay=row.delay,
        timeout=row.timeout,
        rise=row.rise_threshold,
        fall=row.fall_threshold,
        http_method=row.http_method or "GET",
        url_path=row.url_path or "/",
        expected_codes=row.expected_codes or "200",
        http_version=row.http_version,
        domain_name=row.domain_name,
    )

"""Floating IPs of load balancers in the cloud: looks, has ``plan.floating_ips`` decide, and carries it out.

What always holds: the floating IP on a load balancer's port is asked for by the port, so that a Service that is as it should be
costs one call however many Services there are; where all of the project must be known the list is shared with the other
Services, and own writes are entered into it.
"""

from __future__ import annotations

import asyncio
import contextlib
from fnmatch import fnmatchcase
from typing import assert_never

from moyai.cloud.capabilities import Capability
from moyai.cloud.load_balancers import LoadBalancer
from moyai.cloud.model import FloatingIP
from moyai.core.errors import NotFound, UsageError
from moyai.core.ids import KEEP_TAG, ClusterIdentity, cluster_tag
from moyai.core.keys import Kind
from moyai.plan.floating_ips import (
    AddressChange,
    AddressPlan,
    AddressRequest,
    AttachAddress,
    CreateAddress,
    DeleteAddress,
    DetachAddress,
    HandOverAddress,
    KeepAddress,
    is_settled,
    must_be_fresh,
    plan_address,
    plan_release,
)
from moyai.plan.load_balancer.names import (
    names_service_of,
    service_address_description,
    service_address_mark,
    service_of_address,
    service_of_name,
)
from moyai.plan.load_balancer.service_settings import LoadBalancerSettings
from moyai.plan.load_balancer.sharing import ServiceMarks, made_for_a_service
from moyai.runtime.calls import CloudCalls
from moyai.runtime.shared_reads import RecentList

#: How old the shared list may be. Only what somebody else did since then is not in it.
_RECENT_SECONDS = 10.0


class FloatingIPs:
    def __init__(self, calls: CloudCalls, cluster: ClusterIdentity) -> None:
        self._cloud, self._call = calls.cloud, calls.call
        self._cluster = cluster
        self._external = ""
        self._external_lock = asyncio.Lock()
        self._all: RecentList[FloatingIP] = RecentList(
            lambda: self._call(self._cloud.addresses.floating_ips), key=lambda one: one.id, clock=calls.clock
        )

    async def made_for_services(self) -> list[tuple[str, FloatingIP]]:
        """Those that were made for Services and are not to be kept, each with its Service's ``namespace/name``, whether that
        still exists or not."""
        return [
            (key, one)
            for one in await self._all.get(max_age=0)
            if (key := service_of_address(self._cluster, one.description)) and KEEP_TAG not in one.tags
        ]

    async def ensure(self, marks: ServiceMarks, settings: LoadBalancerSettings, *, found: LoadBalancer, new: bool) -> str:
        """The floating address of the load balancer's port, made or found; empty for an internal one. ``new``: the port was
        created just now, so that nothing can be attached to it."""
        request = self._request(marks, settings, found=found)
        attached = [] if new else await self._attached(found.vip_port_id)
        observed = attached
        if not is_settled(request, attached):
            observed = await self._known(attached, max_age=_RECENT_SECONDS)
            if must_be_fresh(request, observed):
                observed = await self._known(attached, max_age=0)
        plan = plan_address(request, observed)
        return await self._carry_out(plan, request=request, settings=settings) or plan.address

    async def release(
        self, marks: ServiceMarks, settings: LoadBalancerSettings, *, found: LoadBalancer | None
    ) -> tuple[str, ...]:
        """Let go of what the Service has on the load balancer's port, or, without one, of all that it has; returns the
        addresses that are kept."""
        request = self._request(marks, settings, found=found)
        if found:
            known = await self._attached(found.vip_port_id) if found.vip_port_id else []
        else:
            known = await self._all.get(max_age=_RECENT_SECONDS)
            if must_be_fresh(request, known):
                known = await self._all.get(max_age=0)
        plan = plan_release(request, known)
        await self._carry_out(plan, request=request, settings=settings)
        return plan.kept

    async def delete(self, floating_ip_id: str) -> None:
        """One that the last ``made_for_services`` had."""
        await self._change(DeleteAddress(floating_ip_id))

    def _request(self, marks: ServiceMarks, settings: LoadBalancerSettings, *, found: LoadBalancer | None) -> AddressRequest:
        others = marks.others(found) if found else ()
        # on a load balancer of the user's there may be Services of other clusters
        heirs = [one for one in others if found and (marks.in_cluster(found) or names_service_of(self._cluster.name, one))]
        return AddressRequest(
            description=service_address_description(self._cluster, marks.key),
            mark=service_address_mark(self._cluster, marks.key),
            port_id=found.vip_port_id if found else "",
            address=settings.floating_address,
            keep=settings.keep_floating_ip,
            public=not settings.internal,
            guest=found is not None and not made_for_a_service(found, marks.cluster),
            shared=bool(others),
            heir=service_address_description(self._cluster, service_of_name(heirs[0])) if heirs else "",
        )

    async def _attached(self, port_id: str) -> list[FloatingIP]:
        return await self._call(self._cloud.addresses.floating_ips, port_ids=[port_id])

    async def _known(self, attached: list[FloatingIP], *, max_age: float) -> list[FloatingIP]:
        """All of the project; what was just read goes before the list."""
        fresh = {one.id for one in attached}
        return [*attached, *(one for one in await self._all.get(max_age=max_age) if one.id not in fresh)]

    async def _carry_out(self, plan: AddressPlan, *, request: AddressRequest, settings: LoadBalancerSettings) -> str:
        """Returns the address of the one that was created, where one was."""
        created = ""
        for change in plan.changes:
            try:
                if isinstance(change, CreateAddress):
                    created = await self._create(change, request=request, settings=settings)
                else:
                    await self._change(change)
            except BaseException:
                # it may have taken effect all the same
                self._all.forget()
                raise
        return created

    async def _create(self, change: CreateAddress, *, request: AddressRequest, settings: LoadBalancerSettings) -> str:
        network = settings.floating_network_id or await self._external_network()
        made = await self._call(
            self._cloud.addresses.create_floating_ip,
            network_id=network,
            subnet_id=settings.floating_subnet_id or await self._subnet(network, settings.floating_subnet),
            port_id=change.port_id,
            address=change.address,
            description=request.description,
            tags=[cluster_tag(self._cluster.uid), *([KEEP_TAG] if request.keep else [])],
        )
        self._all.put(made)
        return made.address

    async def _change(self, change: AddressChange) -> None:
        match change:
            case AttachAddress():
                self._all.put(await self._call(self._cloud.addresses.associate_floating_ip, change.id, change.port_id))
            case DetachAddress():
                with contextlib.suppress(NotFound):
                    self._all.put(await self._call(self._cloud.addresses.associate_floating_ip, change.id, None))
            case DeleteAddress():
                await self._call(self._cloud.addresses.delete_floating_ip, change.id)
                self._all.drop(change.id)
            case HandOverAddress():
                self._all.put(await self._call(self._cloud.addresses.describe_floating_ip, change.id, change.description))
            case KeepAddress():
                await self._mark_kept(change.id)
                self._all.forget()
            case CreateAddress():
                raise AssertionError("created apart, for it alone has a result")
            case _:
                assert_never(change)

    async def _mark_kept(self, floating_ip_id: str) -> None:
        if Capability.TAGS not in await self._call(self._cloud.capabilities):
            # unmarked, it would be removed as an orphan
            raise UsageError(
                f"floating IP {floating_ip_id} cannot be kept: cloud {self._cloud.name} has no {Capability.TAGS}",
                hint="on this cloud the annotation keep-floatingip works only from the creation of the Service on",
            )
        await self._call(self._cloud.tags.add_tags, Kind.FLOATING_IP, floating_ip_id, tags=[KEEP_TAG])

    async def _subnet(self, network_id: str, pattern: str) -> str:
        if not pattern:
            return ""
        found = await self._call(self._cloud.networks.subnets, network_id=network_id)
        for one in sorted(found, key=lambda subnet: subnet.name):
            if fnmatchcase(one.name, pattern):
                return one.id
        names = ", ".join(sorted(one.name for one in found)) or "there is none that you may see"
        raise UsageError(f"no subnet of the external network is called {pattern!r} ({names})")

    async def _external_network(self) -> str:
        async with self._external_lock:
            if not self._external:
                found = await self._call(self._cloud.networks.networks, external=True)
                if len(found) != 1:
                    names = ", ".join(sorted(one.name for one in found)) or "there is none"
                    raise UsageError(
                        f"which external network the floating IP shall come from is not clear ({names})",
                        hint="set floating-network-id in [LoadBalancer] of the cloud config or the annotation "
                        "loadbalancer.openstack.org/floating-network-id, or make the load balancer internal",
                    )
                self._external = found[0].id
            return self._external

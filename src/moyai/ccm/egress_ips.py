"""Floating IPs of egress addresses: a port without a machine has the address, and the floating IP is on that port.

Always holds: the finalizer is on the object before anything is made for it. A take-over changes nothing in the cloud: its
router asks by ARP who has the address. What users made (a port with the address, a floating IP) is used and let go, never
deleted. A port that was made stays for as long as the cluster, with its address: the controllers' credential cannot delete
ports, for with that it could cut machines off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from moyai.ccm.settings import CcmConfig
from moyai.cloud.capabilities import Capability
from moyai.cloud.model import FloatingIP, Port, Subnet
from moyai.core.errors import Conflict, MoyaiError, NotFound, UsageError
from moyai.core.ids import ClusterIdentity, cluster_tag
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects.egress import ANY_FLOATING_IP, EgressAddress, parse_egress_address
from moyai.kube.resources import EGRESS_ADDRESSES, Json
from moyai.kube.watching import Kube
from moyai.kube.workqueue import WorkQueue
from moyai.plan.floating_ips import (
    AddressPlan,
    AddressRequest,
    AttachAddress,
    CreateAddress,
    DeleteAddress,
    DetachAddress,
    plan_address,
    plan_release,
)
from moyai.runtime.calls import CloudCalls
from moyai.runtime.controllers import Part
from moyai.runtime.reconciler import DONE, Result

FINALIZER = "moyai.dev/floating-ip"
_WORKERS = 2


class EgressIpController:
    """``addresses``: the cluster's EgressAddress objects."""

    def __init__(
        self,
        *,
        kube: Kube,
        addresses: Informer[EgressAddress],
        calls: CloudCalls,
        config: CcmConfig,
        cluster: ClusterIdentity,
        events: EventRecorder,
    ) -> None:
        self._kube, self._addresses, self._events = kube, addresses, events
        self._cloud, self._call = calls.cloud, calls.call
        self._config, self._cluster = config, cluster
        self.part = Part("egress-ips", self.reconcile, watch=self._watch, workers=_WORKERS, on_error=self._failed)

    def _watch(self, queue: WorkQueue) -> None:
        def changed(key: str, old: EgressAddress | None, new: EgressAddress | None) -> None:
            if _matters(old) == _matters(new):
                return
            queue.add(key)
            # a younger object with the same address waits for this one's end
            mine = {each.address for each in (old, new) if each}
            for each in self._addresses.all():
                if each.address in mine:
                    queue.add(each.key)

        self._addresses.add_handler(changed)

    async def reconcile(self, key: str) -> Result:
        one = self._addresses.get(key)
        if one is None:
            return DONE
        if one.deleting or not one.floating_ip or one.problem:
            if FINALIZER in one.finalizers:
                await self._release(one)
                await self._show(one, "")
                await self._set_finalizer(one, wanted=False)
            return DONE
        self._check(one)
        if FINALIZER not in one.finalizers:
            await self._set_finalizer(one, wanted=True)
        port = await self._port(one)
        request = self._request(one, port)
        plan = plan_address(request, await self._known(one, port=port, request=request))
        address = await self._carry_out(plan, request=request) or plan.address
        await self._show(one, address)
        if one.public != address:
            self._events.event(one.about, "Normal", reason="FloatingIP", message=f"{one.address} is {address} outside")
        return DONE

    def _failed(self, key: str, error: MoyaiError) -> None:
        one = self._addresses.get(key)
        if one is not None:
            self._events.event(one.about, "Warning", reason="FloatingIPFailed", message=str(error))

    def _check(self, one: EgressAddress) -> None:
        ordered = sorted((each.created, each.key) for each in self._addresses.all() if each.address == one.address)
        if ordered[0][1] != one.key:
            raise UsageError(f"spec.address: {one.address} is that of {ordered[0][1]}, which is older")
        if Capability.FLOATING_IPS not in self._cloud.capabilities():
            raise UsageError(f"spec.floatingIP: cloud {self._cloud.name} has no {Capability.FLOATING_IPS}")
        if not any(IPv4Address(one.address) in IPv4Network(cidr) for cidr in self._config.announce.ranges):
            raise UsageError(f"spec.address: {one.address} is in none of the cluster's services.announce.ranges")

    # --- the port ---------------------------------------------------------------------------------------------------------

    async def _port(self, one: EgressAddress) -> Port:
        """With the address: the user's, or one that was made for it."""
        subnet = await self._subnet()
        found = await self._find(one, subnet)
        if found is not None and found.device_id:
            raise UsageError(f"spec.address: {one.address} is that of a machine or router (port {found.id})")
        if found is not None:
            return found
        return await self._call(
            self._cloud.networks.create_port,
            name=self._name(one),
            network_id=subnet.network_id,
            subnet_id=subnet.id,
            fixed_ip=one.address,
            tags=[cluster_tag(self._cluster.uid)],
        )

    async def _find(self, one: EgressAddress, subnet: Subnet) -> Port | None:
        found = await self._call(self._cloud.networks.ports, network_id=subnet.network_id)
        return next((port for port in found if one.address in port.fixed_ips), None)

    async def _subnet(self) -> Subnet:
        wanted = self._config.load_balancer.subnet_id
        found = await self._call(self._cloud.networks.subnets)
        subnet = next((one for one in found if one.id == wanted), None)
        if subnet is None:
            raise UsageError(f"cloud config: [LoadBalancer] subnet-id: there is no subnet {wanted!r}")
        return subnet

    def _name(self, one: EgressAddress) -> str:
        return f"{self._cluster.name}-egress-{one.address}"

    # --- the floating IP ----------------------------------------------------------------------------------------------------

    def _request(self, one: EgressAddress, port: Port | None) -> AddressRequest:
        return AddressRequest(
            description=f"egress address of {one.key} in cluster {self._cluster.name} ({one.about.uid})",
            port_id=port.id if port else "",
            address="" if one.floating_ip == ANY_FLOATING_IP else one.floating_ip,
            guest=port is not None and port.name != self._name(one),
        )

    async def _known(self, one: EgressAddress, *, port: Port, request: AddressRequest) -> list[FloatingIP]:
        """All of the project. What the object had on the port of its former address is free."""
        found: list[FloatingIP] = []
        for each in await self._call(self._cloud.addresses.floating_ips):
            mine = each.description == request.description or each.address == one.public
            if mine and each.port_id not in ("", port.id) and await self._made_here(each.port_id):
                found.append(await self._call(self._cloud.addresses.associate_floating_ip, each.id, None))
            else:
                found.append(each)
        return found

    async def _made_here(self, port_id: str) -> bool:
        found = await self._call(self._cloud.networks.ports, ids=[port_id])
        return any(one.name.startswith(f"{self._cluster.name}-egress-") for one in found)

    async def _release(self, one: EgressAddress) -> None:
        request = self._request(one, await self._find(one, await self._subnet()))
        plan = plan_release(request, await self._call(self._cloud.addresses.floating_ips))
        await self._carry_out(plan, request=request)

    async def _carry_out(self, plan: AddressPlan, *, request: AddressRequest) -> str:
        """Returns the address of the one that was created, where one was."""
        addresses, created = self._cloud.addresses, ""
        for change in plan.changes:
            match change:
                case CreateAddress():
                    network = self._config.load_balancer.floating_network_id or await self._external_network()
                    made: FloatingIP = await self._call(
                        addresses.create_floating_ip,
                        network_id=network,
                        port_id=change.port_id,
                        address=change.address,
                        description=request.description,
                        tags=[cluster_tag(self._cluster.uid)],
                    )
                    created = made.address
                case AttachAddress():
                    await self._call(addresses.associate_floating_ip, change.id, change.port_id)
                case DetachAddress():
                    with contextlib.suppress(NotFound):
                        await self._call(addresses.associate_floating_ip, change.id, None)
                case DeleteAddress():
                    with contextlib.suppress(NotFound):
                        await self._call(addresses.delete_floating_ip, change.id)
                case _:
                    raise AssertionError(change)
        return created

    async def _external_network(self) -> str:
        found = await self._call(self._cloud.networks.networks, external=True)
        if len(found) != 1:
            names = ", ".join(sorted(one.name for one in found)) or "there is none"
            raise UsageError(f"which external network the floating IP shall come from is not clear ({names})")
        return found[0].id

    # --- the object -----------------------------------------------------------------------------------------------------------

    async def _show(self, one: EgressAddress, address: str) -> None:
        if one.public != address:
            body: Json = {"status": {"floatingIP": address or None}}
            await self._kube.patch(EGRESS_ADDRESSES, one.name, body=body, namespace=one.namespace, subresource="status")

    async def _set_finalizer(self, one: EgressAddress, *, wanted: bool) -> None:
        """The list is replaced as a whole: only if nobody changed it meanwhile."""
        now = parse_egress_address(await self._kube.get(EGRESS_ADDRESSES, one.name, namespace=one.namespace))
        if now.about.uid != one.about.uid:
            raise Conflict(f"EgressAddress {one.key} was deleted and recreated meanwhile")
        kept: Sequence[str] = [each for each in now.finalizers if each != FINALIZER]
        meta: Json = {"finalizers": [*kept, *([FINALIZER] if wanted else [])], "resourceVersion": now.version}
        await self._kube.patch(EGRESS_ADDRESSES, one.name, body={"metadata": meta}, namespace=one.namespace)


def _matters(one: EgressAddress | None) -> object:
    """All but the node, which moves without a change in the cloud."""
    return None if one is None else replace(one, node="", version="")

# pyright: basic, reportMissingImports=false
"""Octavia's provider driver `moyai`: each load balancer is a network namespace on its VIP port, with HAProxy and nftables.

It runs in octavia-api and only refuses what cannot be done, makes the VIP port, and calls moyai-lbd (`agent`), which does
the work from the database. The call may be lost: moyai-lbd looks by itself every second.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket

from octavia_lib.api.drivers import exceptions, provider_base
from openstack import exceptions as sdk_exceptions

from moyai.linux import haproxy
from moyai.localcloud.drivers.octavia import api_calls, provider_settings, quota_locks, validate
from moyai.localcloud.drivers.octavia.agent import SOCKET
from moyai.localcloud.drivers.octavia.octavia_database import (
    DEVICE_OWNER,
    OctaviaDatabase,
    device_id,
    neutron,
    vip_port_name,
)
from moyai.localcloud.drivers.octavia.vip_link import MADE, TAKEN, MadePort, PortBefore

LOG = logging.getLogger(__name__)


api_calls.save()
quota_locks.take_at_commit()


class MoyaiProvider(provider_base.ProviderDriver):
    """One instance a request: it keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._settings = provider_settings.read()

    # ---- load balancers

    def create_vip_port(self, loadbalancer_id, project_id, vip_dictionary, additional_vip_dicts):
        """Make (or take) the port of all VIPs, bound to the host of moyai-lbd. Returns their addresses and places."""
        self._check(validate.vips(vip_dictionary))
        given = vip_dictionary.get("vip_port_id")
        vip = {"subnet_id": vip_dictionary.get("vip_subnet_id"), "ip_address": vip_dictionary.get("vip_address")}
        wanted = [vip, *(additional_vip_dicts or [])]
        try:
            port = (
                self._take_port(loadbalancer_id, given, wanted)
                if given
                else self._make_port(loadbalancer_id, project_id, vip_dictionary["vip_network_id"], wanted)
            )
        except sdk_exceptions.SDKException as error:
            text = f"The VIP port cannot be made: {getattr(error, 'details', None) or error}"
            raise exceptions.DriverError(user_fault_string=text, operator_fault_string=text) from error
        first, *others = ((_fixed(port, one) or port.fixed_ips[0]) for one in wanted)
        self._call(loadbalancer_id, "port", port.id)
        return {
            **vip_dictionary,
            "vip_port_id": port.id,
            "vip_address": first["ip_address"],
            "vip_subnet_id": first["subnet_id"],
            "vip_network_id": port.network_id,
        }, [
            {
                "port_id": port.id,
                "ip_address": one["ip_address"],
                "subnet_id": one["subnet_id"],
                "network_id": port.network_id,
            }
            for one in others
        ]

    def _make_port(self, loadbalancer_id, project_id, network_id, wanted):
        places = [{key: one[key] for key in ("subnet_id", "ip_address") if one.get(key)} for one in wanted]
        port = neutron().create_port(
            name=vip_port_name(loadbalancer_id),
            network_id=network_id,
            project_id=project_id,
            device_id=device_id(loadbalancer_id),
            device_owner=DEVICE_OWNER,
            binding_host_id=self._settings.host,
            # the namespace answers nothing but the listeners' ports
            is_port_security_enabled=False,
            **({"fixed_ips": places} if all(places) else {}),
        )
        fixed = tuple((one["subnet_id"], one["ip_address"]) for one in port.fixed_ips)
        MadePort(port.id, port.mac_address, port.network_id, fixed).save(self._settings.folder / loadbalancer_id / MADE)
        return port

    def _take_port(self, loadbalancer_id, port_id, wanted):
        network = neutron()
        port = network.get_port(port_id)
        for one in wanted[1:]:
            if _fixed(port, one) is None:
                self._check(f"an additional VIP in subnet {one.get('subnet_id')}, in which port {port_id} has no such address")
        # as with a port of ours: the namespace itself answers nothing but the listeners' ports
        before = PortBefore(bool(port.is_port_security_enabled), tuple(port.security_group_ids or ()))
        before.save(self._settings.folder / loadbalancer_id / TAKEN)
        return network.update_port(
            port.id,
            device_id=device_id(loadbalancer_id),
            device_owner=DEVICE_OWNER,
            binding_host_id=self._settings.host,
            security_group_ids=[],
            is_port_security_enabled=False,
        )

    def loadbalancer_create(self, loadbalancer):
        # what is refused here is rolled back by Octavia, which knows nothing of the port: moyai-lbd takes that away
        data = loadbalancer.to_dict(recurse=True)
        self._check(validate.balancer(data))
        self._check_patterns(data)
        self._call(loadbalancer.loadbalancer_id)

    def loadbalancer_update(self, old_loadbalancer, new_loadbalancer):
        self._check(validate.balancer(new_loadbalancer.to_dict(recurse=True)))
        self._call(old_loadbalancer.loadbalancer_id)

    def loadbalancer_delete(self, loadbalancer, cascade=False):
        self._call(loadbalancer.loadbalancer_id)

    def loadbalancer_failover(self, loadbalancer_id):
        self._call(loadbalancer_id, "failover")

    # ---- listeners

    def listener_create(self, listener):
        data = listener.to_dict(recurse=True)
        self._check(validate.listener(data))
        self._check_patterns(data)
        self._call(listener.loadbalancer_id)

    def listener_update(self, old_listener, new_listener):
        self._check(validate.listener(_merged(old_listener, new_listener)))
        self._call(old_listener.loadbalancer_id)

    def listener_delete(self, listener):
        self._call(listener.loadbalancer_id)

    # ---- pools

    def pool_create(self, pool):
        self._check(validate.pool(pool.to_dict(recurse=True)))
        self._call(pool.loadbalancer_id)

    def pool_update(self, old_pool, new_pool):
        self._check(validate.pool(_merged(old_pool, new_pool)))
        self._call(old_pool.loadbalancer_id)

    def pool_delete(self, pool):
        self._call(pool.loadbalancer_id)

    # ---- members

    def member_create(self, member):
        self._change_of_pool(member.pool_id, [member.to_dict()])

    def member_update(self, old_member, new_member):
        self._change_of_pool(old_member.pool_id, [_merged(old_member, new_member)])

    def member_delete(self, member):
        self._change_of_pool(member.pool_id)

    def member_batch_update(self, pool_id, members):
        self._change_of_pool(pool_id, [one.to_dict() for one in members])

    # ---- health monitors

    def health_monitor_create(self, healthmonitor):
        self._check(validate.monitor(healthmonitor.to_dict()))
        self._change_of_pool(healthmonitor.pool_id)

    def health_monitor_update(self, old_healthmonitor, new_healthmonitor):
        self._check(validate.monitor(_merged(old_healthmonitor, new_healthmonitor)))
        self._change_of_pool(old_healthmonitor.pool_id)

    def health_monitor_delete(self, healthmonitor):
        self._change_of_pool(healthmonitor.pool_id)

    # ---- L7 policies and rules

    def l7policy_create(self, l7policy):
        self._change_of_policy(OctaviaDatabase().place_of_listener(l7policy.listener_id), l7policy.to_dict(recurse=True))

    def l7policy_update(self, old_l7policy, new_l7policy):
        place = OctaviaDatabase().place_of_policy(old_l7policy.l7policy_id)
        self._change_of_policy(place, _merged(old_l7policy, new_l7policy))

    def l7policy_delete(self, l7policy):
        self._change_of_policy(OctaviaDatabase().place_of_policy(l7policy.l7policy_id))

    def l7rule_create(self, l7rule):
        self._check_rule(l7rule.to_dict())
        self._change_of_policy(OctaviaDatabase().place_of_policy(l7rule.l7policy_id))

    def l7rule_update(self, old_l7rule, new_l7rule):
        self._check_rule(_merged(old_l7rule, new_l7rule))
        self._change_of_policy(OctaviaDatabase().place_of_policy(old_l7rule.l7policy_id))

    def l7rule_delete(self, l7rule):
        self._change_of_policy(OctaviaDatabase().place_of_policy(l7rule.l7policy_id))

    # ---- flavors and zones

    def get_supported_flavor_metadata(self):
        return dict(validate.FLAVOR)

    def validate_flavor(self, flavor_dict):
        self._check(validate.flavor(flavor_dict))

    def get_supported_availability_zone_metadata(self):
        return dict(validate.ZONE)

    def validate_availability_zone(self, availability_zone_dict):
        self._check(validate.zone(availability_zone_dict))

    # ----

    def _change_of_pool(self, pool_id, members=()):
        place = self._found(OctaviaDatabase().place_of_pool(pool_id), "pool")
        for one in members:
            self._check(validate.member(one, place.protocol, vips=place.vips))
        self._call(place.balancer_id)

    def _change_of_policy(self, place, policy=None):
        place = self._found(place, "listener or L7 policy")
        self._check(validate.l7_policy(policy or {}, place.protocol))
        self._check_patterns(policy or {})
        self._call(place.balancer_id)

    def _check_rule(self, rule):
        self._check(validate.l7_rule(rule))
        self._check_patterns(rule)

    def _check_patterns(self, data):
        """Octavia checks regular expressions as Python's; those that HAProxy refuses would break the load balancer."""
        for pattern in validate.patterns(data):
            if problem := haproxy.refuses_pattern(pattern):
                self._check(f"the regular expression {pattern}: {problem}")

    @staticmethod
    def _found(place, what):
        if place is None:
            text = f"the {what} does not exist"
            raise exceptions.DriverError(user_fault_string=text, operator_fault_string=text)
        return place

    @staticmethod
    def _check(problem):
        if problem:
            text = f"The moyai provider does not support {problem}."
            raise exceptions.UnsupportedOptionError(user_fault_string=text, operator_fault_string=text)

    def _call(self, balancer_id, verb="apply", *details):
        """Say "look now". When nobody listens, moyai-lbd finds the work as soon as it runs again."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as call:
            call.setblocking(False)
            try:
                call.sendto(" ".join((verb, balancer_id, *details)).encode(), os.fspath(self._settings.folder / SOCKET))
            except OSError as error:
                LOG.warning("moyai-lbd does not listen (%s): load balancer %s waits for it", error, balancer_id)


def _fixed(port, wanted):
    """The port's address that was wanted: that very one, or one in the wanted subnet; None when the port has none."""
    if wanted.get("ip_address"):
        address = ipaddress.ip_address(wanted["ip_address"])
        return next((one for one in port.fixed_ips if ipaddress.ip_address(one["ip_address"]) == address), None)
    return next((one for one in port.fixed_ips if one["subnet_id"] == wanted.get("subnet_id")), None)


def _merged(old, new):
    """The object as it will be."""
    return {**old.to_dict(recurse=True), **new.to_dict(recurse=True)}

"""Neutron: server, and Linux-bridge agents: one on each hypervisor; L3, DHCP and metadata on the first."""

from __future__ import annotations

from moyai.localcloud.layout import MAX_ADDRESS_PAIRS, MAX_ROUTES, PORTS, FlatNetwork, Hypervisor
from moyai.localcloud.services.rendering import (
    NO_NOTIFICATIONS,
    RABBIT,
    Section,
    ServiceContext,
    auth_token,
    client,
    concurrency,
    database,
    ini,
    python_env,
    service_ini,
)
from moyai.localcloud.supervision import ServiceSpec

MANAGEMENT_BRIDGE = "os-br-mgmt"


def card(wire: FlatNetwork) -> str:
    """The card of a hypervisor in a network that reaches all of them."""
    return wire.bridge.replace("os-br-", "wire-")


def files(context: ServiceContext) -> dict[str, str]:
    address = context.config.address
    agent: Section = {"root_helper": "env", "report_interval": 10, "polling_interval": 1}
    neutron = {
        "DEFAULT": {
            "bind_host": address,
            "bind_port": PORTS["neutron"],
            "host": context.config.hypervisors[0].host,
            "core_plugin": "ml2",
            # Neutron's default; tags and atomic extra routes come with it. Every further one costs each port queries.
            "service_plugins": "router",
            "auth_strategy": "keystone",
            "transport_url": context.transport_url,
            "state_path": context.paths.state / "neutron",
            # machines of a cluster are made side by side, and each costs Neutron dozens of requests
            "api_workers": 2,
            "rpc_workers": 1,
            "rpc_state_report_workers": 0,
            "max_routes": MAX_ROUTES,
            "max_allowed_address_pair": MAX_ADDRESS_PAIRS,
            "notify_nova_on_port_status_changes": True,
            "notify_nova_on_port_data_changes": True,
            # events for Nova are sent in batches: a machine waits for its own
            "send_events_interval": 0,
            "api_paste_config": context.env.etc / "neutron" / "api-paste.ini",
            "agent_down_time": 30,
            "dhcp_agents_per_network": 1,
            "interface_driver": "linuxbridge",
            "dhcp_driver": "neutron.agent.linux.dhcp.Dnsmasq",
            # seconds: ports that are made side by side in one network cost dnsmasq one look at its files, not one each
            "bulk_reload_interval": 1,
            "enable_isolated_metadata": True,
            "dnsmasq_dns_servers": context.nameservers,
            "agent_mode": "legacy",
            "nova_metadata_host": address,
            "metadata_proxy_shared_secret": context.secrets.metadata,
            "metadata_workers": 0,
        },
        "agent": agent,
        "AGENT": {"root_helper": "env"},
        "experimental": {"linuxbridge": True},
        "oslo_messaging_notifications": NO_NOTIFICATIONS,
        "oslo_messaging_rabbit": RABBIT,
        "database": database(context, "neutron"),
        "keystone_authtoken": auth_token(context, "neutron"),
        "nova": client(context, "nova"),
        "placement": client(context, "placement"),
        # Neutron's own limits, but for security groups: every cluster has two, and a rule for each NodePort
        "quotas": {"quota_security_group": 50, "quota_security_group_rule": 1000, "quota_router": 20},
        "ml2": {
            "type_drivers": "flat,vxlan,local",
            "tenant_network_types": "vxlan",
            "mechanism_drivers": "linuxbridge",
            # ports are made with their tags in one call
            "extension_drivers": "port_security,tag_ports_during_bulk_creation",
        },
        "ml2_type_flat": {"flat_networks": tuple(wire.name for wire in context.config.wires)},
        "ml2_type_vxlan": {"vni_ranges": "1:2000"},
        "vxlan": {"enable_vxlan": True, "l2_population": False},
        "securitygroup": {"firewall_driver": "iptables", "enable_ipset": True},
        "oslo_concurrency": concurrency(context),
    }
    hypervisors = {f"neutron-{hv.host}.conf": _hypervisor(context, hv) for hv in context.config.hypervisors}
    return {"neutron.conf": service_ini(context, "neutron", sections=neutron), **hypervisors}


def _hypervisor(context: ServiceContext, hypervisor: Hypervisor) -> str:
    return ini(
        {
            "AGENT": {"availability_zone": hypervisor.zone},
            "DEFAULT": {"host": hypervisor.host, "state_path": context.paths.state / f"neutron-{hypervisor.host}"},
            "vxlan": {"local_ip": hypervisor.address},
            "linux_bridge": _mappings(context, hypervisor),
        }
    )


def _mappings(context: ServiceContext, hypervisor: Hypervisor) -> Section:
    """External networks end on the first hypervisor, where the routers are. Those with machines reach all hypervisors by a card
    in each: to a bridge of the agent's own, into which Nova puts the machines, and to no other."""
    wires = context.config.wires
    routed = () if hypervisor.netns else tuple(f"{wire.name}:{wire.bridge}" for wire in wires if not wire.shared)
    cards = tuple(f"{wire.name}:{card(wire)}" for wire in wires if wire.shared)
    return {"bridge_mappings": routed, "physical_interface_mappings": cards}


def services(context: ServiceContext) -> list[ServiceSpec]:
    environment = python_env(context)
    config = ("--config-file", context.conf("neutron.conf"))

    def agent(kind: str, hypervisor: Hypervisor) -> ServiceSpec:
        argv: tuple[str, ...] = (
            context.env.program(f"neutron-{kind}-agent"),
            *config,
            "--config-file",
            context.conf(f"neutron-{hypervisor.host}.conf"),
        )
        if hypervisor.netns:
            # this agent reads /sys/class/net: it needs the namespace's own /sys (which hides the cgroups, needed by none here)
            argv = ("/usr/sbin/ip", "netns", "exec", hypervisor.netns, *argv)
        # an agent that comes before the server waits long before it tries again
        return ServiceSpec(f"neutron-{kind}-{hypervisor.host}", argv, env=environment, after=("rabbitmq", "neutron-server"))

    first = context.config.hypervisors[0]
    return [
        ServiceSpec(
            "neutron-server",
            (context.env.program("neutron-server"), *config),
            env=environment,
            after=("mariadb", "rabbitmq"),
            port=PORTS["neutron"],
        ),
        *(agent("linuxbridge", hypervisor) for hypervisor in context.config.hypervisors),
        *(agent(kind, first) for kind in ("l3", "dhcp", "metadata")),
    ]

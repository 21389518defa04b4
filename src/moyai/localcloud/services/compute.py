"""Nova and Placement: one API, conductor and scheduler, and a nova-compute for each hypervisor."""

from __future__ import annotations

from moyai.localcloud.layout import PORTS, Hypervisor
from moyai.localcloud.services.rendering import (
    NO_NOTIFICATIONS,
    RABBIT,
    ServiceContext,
    auth_token,
    client,
    concurrency,
    database,
    ini,
    policy_yaml,
    python_env,
    service_ini,
    wsgi,
)
from moyai.localcloud.supervision import ServiceSpec

_REFUSED = (
    "os_compute_api:os-rescue",
    "os_compute_api:servers:resize",
    "os_compute_api:os-migrate-server:migrate",
    "os_compute_api:os-migrate-server:migrate_live",
    "os_compute_api:os-evacuate",
    "os_compute_api:os-volumes-attachments:swap",
)


def files(context: ServiceContext) -> dict[str, str]:
    address = context.config.address
    nova = {
        "DEFAULT": {
            "transport_url": context.transport_url,
            "host": context.config.hypervisors[0].host,
            "my_ip": address,
            "state_path": context.paths.state / "nova",
            "enabled_apis": "osapi_compute,metadata",
            "osapi_compute_listen": address,
            "metadata_listen": address,
            "osapi_compute_workers": 1,
            "metadata_workers": 1,
            "compute_driver": "moyai_nspawn.NspawnDriver",
            "compute_monitors": "",
            "instance_usage_audit": False,
            "force_config_drive": True,
            # machines come back with the host, as servers that were ACTIVE
            "resume_guests_state_on_host_boot": True,
            "vif_plugging_timeout": 60,
            "vif_plugging_is_fatal": True,
            "sync_power_state_interval": 30,
            "reserved_host_memory_mb": 0,
            "reserved_host_disk_mb": 0,
            "initial_cpu_allocation_ratio": 16.0,
            "initial_ram_allocation_ratio": 1.5,
            "default_schedule_zone": context.config.zones[0],
            "report_interval": 5,
            "service_down_time": 20,
        },
        "wsgi": {"api_paste_config": context.env.etc / "nova" / "api-paste.ini"},
        "api": {"auth_strategy": "keystone", "local_metadata_per_cell": False, "use_forwarded_for": False},
        "api_database": database(context, "nova_api"),
        "database": database(context, "nova"),
        "keystone_authtoken": auth_token(context, "nova"),
        "service_user": {**client(context, "nova"), "send_service_user_token": True},
        "placement": client(context, "placement"),
        "neutron": {
            **client(context, "neutron"),
            "service_metadata_proxy": True,
            "metadata_proxy_shared_secret": context.secrets.metadata,
        },
        "cinder": {**client(context, "cinder"), "os_region_name": context.config.region, "cross_az_attach": False},
        "glance": client(context, "glance"),
        "conductor": {"workers": 1},
        "scheduler": {"workers": 1, "discover_hosts_in_cells_interval": 10},
        "filter_scheduler": {"track_instance_changes": False},
        "quota": {"instances": 40, "cores": 80, "ram": 131072, "server_group_members": 40},
        "vnc": {"enabled": False},
        "oslo_policy": {"policy_file": context.conf("nova-policy.yaml")},
        "notifications": {"notification_format": "unversioned"},
        "oslo_messaging_notifications": NO_NOTIFICATIONS,
        "oslo_messaging_rabbit": RABBIT,
        "oslo_concurrency": concurrency(context),
    }
    placement = {
        "placement_database": {"connection": context.database("placement")},
        "api": {"auth_strategy": "keystone"},
        "keystone_authtoken": auth_token(context, "placement"),
    }
    # refused at the API: a machine cannot do it, and a request that fails half-way would leave the server in ERROR
    policy = policy_yaml({**dict.fromkeys(_REFUSED, "!"), **context.config.profile.policies.get("nova", {})})
    hypervisors = {f"nova-{hv.host}.conf": _hypervisor(context, hv) for hv in context.config.hypervisors}
    return {
        "nova.conf": service_ini(context, "nova", sections=nova),
        "nova-policy.yaml": policy,
        "placement/placement.conf": ini(placement),
        **hypervisors,
    }


def _hypervisor(context: ServiceContext, hypervisor: Hypervisor) -> str:
    return ini(
        {
            "DEFAULT": {
                "host": hypervisor.host,
                "my_ip": hypervisor.address,
                # holds the compute node's identity (compute_id)
                "state_path": context.paths.state / f"nova-{hypervisor.host}",
            },
            "moyai": {"machines_dir": context.paths.machines, "cgroup": context.cgroup},
        }
    )


def services(context: ServiceContext) -> list[ServiceSpec]:
    environment = python_env(context)
    config = ("--config-file", context.conf("nova.conf"))

    def nova(name: str, after: tuple[str, ...], **more: int) -> ServiceSpec:
        return ServiceSpec(name, (context.env.program(name), *config), env=environment, after=after, port=more.get("port", 0))

    found = [
        ServiceSpec(
            "placement",
            wsgi(context, PORTS["placement"], "placement.wsgi:init_application"),
            env={**environment, "OS_PLACEMENT_CONFIG_DIR": context.conf("placement")},
            after=("mariadb",),
            port=PORTS["placement"],
        ),
        nova("nova-conductor", ("mariadb", "rabbitmq")),
        nova("nova-scheduler", ("mariadb", "rabbitmq")),
        nova("nova-api", ("mariadb", "rabbitmq"), port=PORTS["nova"]),
    ]
    found += [
        ServiceSpec(
            f"nova-compute-{hv.host}",
            (context.env.program("nova-compute"), *config, "--config-file", context.conf(f"nova-{hv.host}.conf")),
            env=environment,
            after=("rabbitmq", "nova-conductor", "keystone", "placement", "neutron-server"),
            netns=hv.netns,
        )
        for hv in context.config.hypervisors
    ]
    return found

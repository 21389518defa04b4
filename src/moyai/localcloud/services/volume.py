"""Cinder: one API and scheduler, one backend (files on this host) a zone, all backends in one service."""

from __future__ import annotations

from moyai.localcloud.layout import PORTS
from moyai.localcloud.services.rendering import (
    NO_NOTIFICATIONS,
    RABBIT,
    Section,
    ServiceContext,
    auth_token,
    client,
    concurrency,
    database,
    python_env,
    service_ini,
)
from moyai.localcloud.supervision import ServiceSpec

#: The default volume type, and the one whose volumes may be attached to several machines.
VOLUME_TYPE = "files"
MULTIATTACH_TYPE = "files-multiattach"
BACKEND_NAME = "files"


def files(context: ServiceContext) -> dict[str, str]:
    address = context.config.address
    zones = context.config.zones
    backends: dict[str, Section] = {
        zone: {
            "volume_driver": "moyai.localcloud.drivers.cinder.driver.FileDriver",
            "volume_backend_name": BACKEND_NAME,
            "backend_availability_zone": zone,
            "moyai_volumes_dir": context.paths.state / "cinder" / zone,
        }
        for zone in zones
    }
    cinder: dict[str, Section] = {
        "DEFAULT": {
            "my_ip": address,
            "osapi_volume_listen": address,
            "osapi_volume_listen_port": PORTS["cinder"],
            "osapi_volume_workers": 1,
            "transport_url": context.transport_url,
            "auth_strategy": "keystone",
            "state_path": context.paths.state / "cinder",
            # the first report of capabilities may get lost while all start side by side
            "periodic_interval": 5,
            "periodic_fuzzy_delay": 5,
            "host": context.config.hypervisors[0].host,
            "api_paste_config": context.env.etc / "cinder" / "api-paste.ini",
            "resource_query_filters_file": context.env.etc / "cinder" / "resource_filters.json",
            "rootwrap_config": context.env.etc / "cinder" / "rootwrap.conf",
            "enabled_backends": zones,
            "default_volume_type": VOLUME_TYPE,
            "storage_availability_zone": zones[0],
            "default_availability_zone": zones[0],
            "allow_availability_zone_fallback": False,
            "volume_clear": "none",
            "glance_api_servers": context.config.url("glance"),
            "scheduler_default_filters": "AvailabilityZoneFilter,CapacityFilter,CapabilitiesFilter",
            "quota_volumes": 100,
            "quota_snapshots": 100,
            "quota_gigabytes": 2000,
            "report_interval": 5,
            "service_down_time": 20,
        },
        **backends,
        "coordination": {"backend_url": f"file://{context.paths.run / 'cinder-coordination'}"},
        "oslo_messaging_notifications": NO_NOTIFICATIONS,
        "oslo_messaging_rabbit": RABBIT,
        "database": database(context, "cinder"),
        "keystone_authtoken": auth_token(context, "cinder"),
        "service_user": {**client(context, "cinder"), "send_service_user_token": True},
        "nova": client(context, "nova"),
        "oslo_concurrency": concurrency(context),
    }
    return {"cinder.conf": service_ini(context, "cinder", sections=cinder)}


def services(context: ServiceContext) -> list[ServiceSpec]:
    def cinder(name: str, after: tuple[str, ...], port: int = 0) -> ServiceSpec:
        argv = (context.env.program(name), "--config-file", context.conf("cinder.conf"))
        return ServiceSpec(name, argv, env=python_env(context), after=after, port=port)

    return [
        cinder("cinder-api", ("mariadb", "rabbitmq"), PORTS["cinder"]),
        cinder("cinder-scheduler", ("mariadb", "rabbitmq")),
        # after the scheduler, which would miss the first report of capabilities
        cinder("cinder-volume", ("mariadb", "rabbitmq", "cinder-scheduler")),
    ]

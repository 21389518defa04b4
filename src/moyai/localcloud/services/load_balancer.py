"""Octavia: its API with our provider, and moyai's own load-balancer daemon, which works from Octavia's database.

There is no amphora, worker, health manager or driver agent: the daemon does what they do, on this host.
"""

from __future__ import annotations

from moyai.localcloud.drivers.octavia import provider_names
from moyai.localcloud.layout import PORTS
from moyai.localcloud.services.rendering import (
    NO_NOTIFICATIONS,
    ServiceContext,
    auth_token,
    client,
    database,
    python_env,
    service_ini,
    wsgi,
)
from moyai.localcloud.supervision import ServiceSpec


def files(context: ServiceContext) -> dict[str, str]:
    if _absent(context):
        return {}
    state = context.paths.state / "octavia"
    octavia = {
        "DEFAULT": {"transport_url": context.transport_url},
        "api_settings": {
            "bind_host": context.config.address,
            "bind_port": PORTS["octavia"],
            "auth_strategy": "keystone",
            "enabled_provider_drivers": ",".join(
                [
                    f"{provider_names.MOYAI}:HAProxy and nftables in a network namespace of this host",
                    *(f"{name}:Another name of {provider_names.MOYAI}" for name in provider_names.ALIASES),
                ]
            ),
            "default_provider_driver": provider_names.MOYAI,
            "allow_tls_terminated_listeners": False,
        },
        # Octavia makes these for each call and uses them for amphorae only
        "controller_worker": {
            "compute_driver": "compute_noop_driver",
            "image_driver": "image_noop_driver",
            "volume_driver": "volume_noop_driver",
        },
        "moyai": {"lb_dir": state / "lb", "lb_host": context.config.hypervisors[0].host},
        "oslo_messaging": {"topic": "octavia_prov"},
        # no certificate authority: there are no amphorae to talk to
        "certificates": {
            "cert_manager": "noop_cert_manager",
            "server_certs_key_passphrase": context.secrets.octavia_key,
        },
        "oslo_messaging_notifications": NO_NOTIFICATIONS,
        "database": database(context, "octavia"),
        "keystone_authtoken": auth_token(context, "octavia"),
        "service_auth": client(context, "octavia"),
        # no endpoint_override: with it a client that is made before Neutron answers keeps an address without a version
        "neutron": client(context, "octavia"),
        "nova": client(context, "octavia"),
        "glance": client(context, "octavia"),
    }
    return {"octavia.conf": service_ini(context, "octavia", sections=octavia)}


def services(context: ServiceContext) -> list[ServiceSpec]:
    if _absent(context):
        return []
    environment = python_env(context)
    config = ("--config-file", context.conf("octavia.conf"))
    return [
        ServiceSpec(
            "octavia-api",
            wsgi(context, PORTS["octavia"], "octavia.api.app:setup_app", *config),
            env=environment,
            after=("mariadb",),
            port=PORTS["octavia"],
        ),
        ServiceSpec(
            "moyai-lbd",
            (str(context.env.python), "-m", "moyai.localcloud.drivers.octavia.agent", *config),
            env=environment,
            after=("mariadb",),
        ),
    ]


def _absent(context: ServiceContext) -> bool:
    return "octavia" in context.config.profile.without

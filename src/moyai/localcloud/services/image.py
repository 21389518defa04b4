"""Glance: images as files on this host."""

from __future__ import annotations

from moyai.localcloud.layout import PORTS
from moyai.localcloud.services.rendering import ServiceContext, auth_token, concurrency, database, python_env, service_ini
from moyai.localcloud.supervision import ServiceSpec


def files(context: ServiceContext) -> dict[str, str]:
    store = context.paths.state / "glance"
    text = service_ini(
        context,
        "glance",
        sections={
            "DEFAULT": {
                "bind_host": context.config.address,
                "bind_port": PORTS["glance"],
                # 0: served by the process itself, no children
                "workers": 0,
                "enabled_backends": "fs:file",
                # the hypervisors are on this host: they read the file itself instead of a copy by HTTP
                "show_image_direct_url": True,
            },
            "paste_deploy": {"flavor": "keystone", "config_file": context.env.etc / "glance" / "glance-api-paste.ini"},
            "glance_store": {"default_backend": "fs"},
            "fs": {"filesystem_store_datadir": f"{store / 'images'}/"},
            "os_glance_tasks_store": {"filesystem_store_datadir": store / "tasks"},
            "os_glance_staging_store": {"filesystem_store_datadir": store / "staging"},
            "database": database(context, "glance"),
            "keystone_authtoken": auth_token(context, "glance"),
            "oslo_concurrency": concurrency(context),
            "oslo_messaging_notifications": {"driver": "noop"},
        },
    )
    return {"glance-api.conf": text}


def services(context: ServiceContext) -> list[ServiceSpec]:
    return [
        ServiceSpec(
            "glance-api",
            (context.env.program("glance-api"), "--config-file", context.conf("glance-api.conf")),
            env=python_env(context),
            after=("mariadb",),
            port=PORTS["glance"],
        )
    ]

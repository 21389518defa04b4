"""Keystone: fernet tokens, keys on disk."""

from __future__ import annotations

from moyai.localcloud.layout import PORTS
from moyai.localcloud.services.rendering import ServiceContext, database, python_env, service_ini, wsgi
from moyai.localcloud.supervision import ServiceSpec


def files(context: ServiceContext) -> dict[str, str]:
    keys = context.paths.state / "keystone"
    text = service_ini(
        context,
        "keystone",
        sections={
            "DEFAULT": {"public_endpoint": context.config.url("keystone"), "use_stderr": True, "insecure_debug": False},
            "token": {"provider": "fernet", "expiration": 86400},
            "fernet_tokens": {"key_repository": keys / "fernet"},
            "fernet_receipts": {"key_repository": keys / "receipts"},
            "credential": {"key_repository": keys / "credential"},
            # copies: Keystone changes some of the values that it gets from its cache, credentials among them
            "cache": {"enabled": True, "backend": "dogpile.cache.memory_pickle"},
            # the hash of a random 128-bit password gains nothing from many rounds, and each log-in pays for them
            "identity": {"password_hash_rounds": 5},
            "database": database(context, "keystone"),
            "oslo_messaging_notifications": {"driver": "noop"},
        },
    )
    return {"keystone/keystone.conf": text}


def services(context: ServiceContext) -> list[ServiceSpec]:
    return [
        ServiceSpec(
            "keystone",
            wsgi(context, PORTS["keystone"], "keystone.server.wsgi:initialize_public_application"),
            env={**python_env(context), "OS_KEYSTONE_CONFIG_DIR": context.conf("keystone")},
            after=("mariadb",),
            port=PORTS["keystone"],
        )
    ]

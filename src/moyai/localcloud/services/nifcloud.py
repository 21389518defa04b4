"""The server that speaks NIFCLOUD, where the cloud was asked for it. It logs in as the user ``demo``, like any client."""

from __future__ import annotations

import json

from moyai.localcloud.layout import NIFCLOUD_HOST, PORTS
from moyai.localcloud.services.rendering import ServiceContext
from moyai.localcloud.supervision import ServiceSpec

#: NIFCLOUD's zones by their numbers: the first availability zone is east-11.
_ZONE = "east-1{number}"
_SETTINGS, _CLOUDS = "nifcloud.json", "nifcloud-clouds.yaml"
_AFTER = ("keystone", "nova-api", "neutron-server", "cinder-api", "glance-api", "octavia-api")


def files(context: ServiceContext) -> dict[str, str]:
    access, config, folder = context.nifcloud, context.config, context.paths.nifcloud
    if access is None:
        return {}
    # needs PyYAML, which a host without this service may lack
    from moyai.localcloud.clouds_yaml import entries

    # the form is of moyai.nifcloud_front.app
    settings = {
        "address": config.address,
        "port": PORTS["nifcloud"],
        "region": NIFCLOUD_HOST.partition(".")[0],
        "cloud": config.name,
        "database": str(context.paths.state / "nifcloud.db"),
        "certificate": str(folder / "server.crt"),
        "certificate_key": str(folder / "server.key"),
        "zones": {_ZONE.format(number=number): zone for number, zone in enumerate(config.zones, start=1)},
        "keys": {access.key: access.secret},
    }
    login = {"clouds": {config.name: entries(config, context.secrets)[config.name]}}
    # JSON is YAML
    return {_SETTINGS: json.dumps(settings, indent=1) + "\n", _CLOUDS: json.dumps(login, indent=1) + "\n"}


def services(context: ServiceContext) -> list[ServiceSpec]:
    if context.nifcloud is None:
        return []
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": context.own_code,
        "PYTHONUNBUFFERED": "1",
        "HOME": str(context.paths.state),
        "LANG": "C.UTF-8",
        "OS_CLIENT_CONFIG_FILE": context.conf(_CLOUDS),
        "NO_PROXY": context.config.address,
    }
    program = (context.own_python, "-m", "moyai.nifcloud_front.app", context.conf(_SETTINGS))
    return [ServiceSpec("nifcloud", program, env=environment, after=_AFTER, port=PORTS["nifcloud"])]

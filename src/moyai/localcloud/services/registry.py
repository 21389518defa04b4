"""The registry of container images inside the cloud (the distribution project's), when its program is given."""

from __future__ import annotations

from moyai.localcloud.layout import PORTS
from moyai.localcloud.services.rendering import Context
from moyai.localcloud.supervision import ServiceSpec


def files(context: Context) -> dict[str, str]:
    text = f"""version: 0.1
log:
  level: warn
storage:
  filesystem:
    rootdirectory: {context.paths.state / "registry"}
  delete:
    enabled: true
http:
  addr: {context.config.address}:{PORTS["registry"]}
"""
    return {"registry.yml": text}


def services(context: Context) -> list[ServiceSpec]:
    if context.registry is None:
        return []
    argv = (str(context.registry), "serve", context.conf("registry.yml"))
    environment = {"HOME": str(context.paths.state), "OTEL_TRACES_EXPORTER": "none"}
    return [ServiceSpec("registry", argv, env=environment, port=PORTS["registry"])]

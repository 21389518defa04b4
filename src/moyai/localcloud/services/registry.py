"""The registry of container images inside the cloud (the distribution project's), when its program is given.

Two processes serve one folder. ``registry`` takes images and is for the host only. ``registry-readonly`` refuses every
change; machines and pods reach only this one, because every node asks it first for every image. The packet filter
(``inside.filter_rules``) decides who reaches which.
"""

from __future__ import annotations

from moyai.localcloud.layout import PORTS
from moyai.localcloud.services.rendering import ServiceContext
from moyai.localcloud.supervision import ServiceSpec

_READONLY = """  maintenance:
    readonly:
      enabled: true
    uploadpurging:
      enabled: false
"""


def files(context: ServiceContext) -> dict[str, str]:
    return {
        "registry.yml": _config(context, "registry", storage="  delete:\n    enabled: true\n"),
        "registry-readonly.yml": _config(context, "registry-readonly", storage=_READONLY),
    }


def _config(context: ServiceContext, name: str, *, storage: str) -> str:
    return f"""version: 0.1
log:
  level: warn
storage:
  filesystem:
    rootdirectory: {context.paths.state / "registry"}
{storage}http:
  addr: {context.config.address}:{PORTS[name]}
"""


def services(context: ServiceContext) -> list[ServiceSpec]:
    if context.registry is None:
        return []
    environment = {"HOME": str(context.paths.state), "OTEL_TRACES_EXPORTER": "none"}
    return [
        ServiceSpec(name, (str(context.registry), "serve", context.conf(f"{name}.yml")), env=environment, port=PORTS[name])
        for name in ("registry", "registry-readonly")
    ]

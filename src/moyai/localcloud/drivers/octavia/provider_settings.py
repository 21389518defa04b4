# pyright: basic, reportMissingImports=false
"""Group ``[moyai]`` of octavia.conf: ``lb_dir`` (the load balancers' files), ``lb_host`` (where VIP ports are bound)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from oslo_config import cfg

_OPTIONS = [
    cfg.StrOpt("lb_dir", default="/var/lib/moyai/lb", help="Folder of the load balancers' configurations, sockets and states."),
    cfg.StrOpt("lb_host", default="hv1", help="Neutron host that VIP ports are bound to: where moyai-lbd runs."),
]


@dataclass(frozen=True)
class ProviderSettings:
    """The options' values."""

    folder: Path
    host: str


def read() -> ProviderSettings:
    """The values, as Octavia's configuration holds them."""
    cfg.CONF.register_opts(_OPTIONS, group="moyai")
    return ProviderSettings(Path(cfg.CONF.moyai.lb_dir), cfg.CONF.moyai.lb_host)


def prepare() -> ProviderSettings:
    """Parse the command line of a separate process, and set up Octavia's configuration and logging."""
    from octavia.common import service

    service.prepare_service(sys.argv)
    return read()

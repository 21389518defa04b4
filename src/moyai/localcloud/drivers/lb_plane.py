"""The data plane of one load balancer: namespace and link, nftables rules, HAProxy; all made from the tree by one function.

`Plane.apply` is idempotent: it may be called at any time with the whole tree, after a crash, a reboot or a kill in its midst,
and changes only what differs. It returns when the load balancer really serves, or raises.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from moyai.linux import netns
from moyai.linux.haproxy import HAProxy, Row
from moyai.localcloud.drivers import lb_haproxy, lb_link
from moyai.localcloud.drivers.lb_model import LoadBalancer, backend_name

LOG = logging.getLogger(__name__)
_PING = """#!/bin/sh
# HAProxy's external check: proxy address, proxy port, server address, server port
exec ping -q -n -c 1 -w "${HAPROXY_SERVER_CHECK_TIMEOUT:-5}" "$3" >/dev/null 2>&1
"""
_WORKS = {"UP": True, "DRAIN": True, "NOLB": True, "DOWN": False}


class Plane:
    """One load balancer on this host. Its files are in ``root``/<id>; only one thread at a time may change it."""

    def __init__(self, root: Path, balancer_id: str) -> None:
        self.id = balancer_id
        self.namespace = lb_link.namespace(balancer_id)
        self.folder = root / balancer_id
        # short: HAProxy and the kernel limit a socket's path
        self.haproxy = HAProxy(self.folder, self.namespace, root / (balancer_id.replace("-", "")[:12] + ".s"))
        self._plug_file = self.folder / "plug.json"
        self._ping = self.folder / "ping-check"

    @property
    def plug(self) -> lb_link.Plug | None:
        """Neutron's answer about the port, as it was kept."""
        return lb_link.Plug.read(self._plug_file)

    def keep(self, plug: lb_link.Plug) -> None:
        """Keep Neutron's answer about the port."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        plug.save(self._plug_file)

    def apply(self, balancer: LoadBalancer, plug: lb_link.Plug) -> None:
        """Make it so. Raises ProcessError, OSError or NotWired, with the former state still serving where that is possible."""
        lb_link.ensure(self.id, plug)
        config = lb_haproxy.render(balancer, self.haproxy, str(self._ping))
        if config.text is None:
            self.haproxy.stop()
        else:
            self._write_ping()
            self.haproxy.apply(config.text, config.checked)
        lb_link.wait_wired(plug)

    def remove(self) -> None:
        """Take everything away: processes, link, namespace, files."""
        self.haproxy.stop()
        lb_link.remove(self.id, self.plug)
        self.haproxy.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def rows(self) -> list[Row]:
        """HAProxy's statistics; nothing when it does not run."""
        with contextlib.suppress(OSError):
            return self.haproxy.rows()
        return []

    def there(self) -> bool:
        """Whether anything of it is left on this host."""
        return self.folder.exists() or netns.path(self.namespace).exists()

    def _write_ping(self) -> None:
        if not self._ping.exists():
            fresh = self.folder / "ping-check.new"
            fresh.write_text(_PING)
            fresh.chmod(0o755)
            fresh.replace(self._ping)


def health(balancer: LoadBalancer, rows: list[Row]) -> dict[str, bool | None]:
    """By member id, what HAProxy's checks say: works, does not, or (None) not known yet."""
    by_name: Mapping[tuple[str, str], Row] = {(row.proxy, row.server): row for row in rows}
    found: dict[str, bool | None] = {}
    for listener in balancer.live_listeners:
        pool = balancer.pool(listener.pool_id)
        if pool is None or pool.live_monitor is None:
            continue
        for member in pool.live_members:
            row = by_name.get((backend_name(pool.id, listener.id), member.id))
            if row is None or row.status == "no check":
                continue
            # "UP 1/3" and "DOWN 1/2" are on their way; the word is what holds now. INI: the first check has not ended
            found[member.id] = None if row.check == "INI" else _WORKS.get(row.status.split()[0])
    return found

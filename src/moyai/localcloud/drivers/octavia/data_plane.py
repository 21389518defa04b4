"""The data plane of one load balancer: namespace and link, nftables rules, HAProxy; all made from the tree by one function.

`Plane.apply` is idempotent: it may be called at any time with the whole tree, after a crash, a reboot or a kill in its midst,
and changes only what differs. It returns when the load balancer really serves, or raises.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from moyai.linux import netns, nft
from moyai.linux.files import write_durably, write_whole
from moyai.linux.haproxy import HAProxy, Row
from moyai.localcloud.drivers.octavia import haproxy_config, nft_rules, vip_link
from moyai.localcloud.drivers.octavia.balancer_tree import LoadBalancer, backend_name
from moyai.localcloud.drivers.octavia.udp_checks import Check

LOG = logging.getLogger(__name__)
Health = Mapping[str, bool | None]
_WORKS = {"UP": True, "DRAIN": True, "NOLB": True, "DOWN": False}


class Plane:
    """One load balancer on this host. Its files are in ``root``/<id>; only one thread at a time may change it."""

    def __init__(self, root: Path, balancer_id: str) -> None:
        self.id = balancer_id
        self.namespace = vip_link.namespace(balancer_id)
        self.folder = root / balancer_id
        # short: HAProxy and the kernel limit a socket's path
        self.haproxy = HAProxy(self.folder, self.namespace, socket_path=root / (balancer_id.replace("-", "")[:12] + ".s"))
        self._plug_file = self.folder / "plug.json"
        self._rules_file = self.folder / "rules.json"
        self._ping = self.folder / "ping-check"
        self._placed = self.folder / "placed"  # the link is finished

    @property
    def plug(self) -> vip_link.Plug | None:
        """Neutron's answer about the port, as it was kept."""
        return vip_link.Plug.read(self._plug_file)

    @property
    def port_before(self) -> vip_link.PortBefore | None:
        """What the user's own VIP port was before, if it is one."""
        return vip_link.PortBefore.read(self.folder / vip_link.TAKEN)

    @property
    def port_made(self) -> vip_link.MadePort | None:
        """The VIP's port as Neutron made it, if the driver had it made."""
        return vip_link.MadePort.read(self.folder / vip_link.MADE)

    def keep(self, plug: vip_link.Plug) -> None:
        """Keep Neutron's answer about the port."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        plug.save(self._plug_file)

    def forget_plug(self) -> None:
        """Ask Neutron again the next time."""
        self._plug_file.unlink(missing_ok=True)

    def place(self, plug: vip_link.Plug) -> None:
        """Make namespace and link where they are missing or wrong, and finish what was cut off."""
        if not vip_link.plugged(self.id, plug):
            self._placed.unlink(missing_ok=True)
            if self._rules() is not None:
                # a new namespace has none of them; where only the link is new, the former ones are still there
                write_whole(self._rules_file, "")
            vip_link.make(self.id, plug)
        if not self._placed.exists():
            vip_link.finish(self.id, plug)
            self._placed.touch()

    def apply(self, balancer: LoadBalancer, plug: vip_link.Plug, *, health: Health) -> None:
        """Make it so, in its `place`. Raises ProcessError, OSError or NotWired, with the former state still serving where that
        is possible.

        ``health``: what is known of the members (see `health_of`); who is not in it is taken to work.
        """
        # the rules first: a port is not answered before its allowed_cidrs hold
        self.apply_rules(balancer, health)
        config = haproxy_config.render(balancer, self.haproxy, ping=str(self._ping))
        if config.text is None:
            self.haproxy.stop()
        else:
            if config.ping:
                self._write_program(config.ping)
            self.haproxy.apply(config.text, config.checked)
        vip_link.wait_wired(plug)

    def apply_rules(self, balancer: LoadBalancer, health: Health) -> None:
        """Only the kernel's part: UDP members and allowed_cidrs. Clients of a member that is gone or ill get another one."""
        rules = nft_rules.render(balancer, health)
        text = json.dumps(rules.commands)
        if self._rules() != text:
            if rules.commands or self._rules() is not None:
                nft.replace_table(self.namespace, nft_rules.TABLE, commands=rules.commands)
            if rules.commands:
                write_whole(self._rules_file, text)
            else:
                self._rules_file.unlink(missing_ok=True)
        if not rules.answering and not self._udp_seen():
            return
        for vip in balancer.vips:
            for flow in nft.udp_flows(self.namespace, vip):
                if (flow.answered_by, flow.answered_from) not in rules.answering.get(flow.port, frozenset()):
                    nft.forget(self.namespace, flow)
        self._note_udp(bool(rules.answering))

    def unplug(self) -> None:
        """Take processes, link and namespace away; the files stay."""
        self.haproxy.stop()
        # HAProxy is ended; only its checks by ping may still run
        vip_link.remove(self.id, self.plug, empty=not self._ping.exists())
        self._rules_file.unlink(missing_ok=True)
        self._placed.unlink(missing_ok=True)

    def remove(self) -> None:
        """Take everything away: processes, link, namespace, files."""
        self.unplug()
        self.haproxy.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def rows(self) -> list[Row]:
        """HAProxy's statistics; nothing when it does not run."""
        with contextlib.suppress(OSError):
            return self.haproxy.rows()
        return []

    def datagrams(self) -> dict[str, tuple[int, int]]:
        """(packets, bytes) of each UDP listener's directions (`nft_rules.counter_name`)."""
        return nft.counters(self.namespace, nft_rules.TABLE) if self._udp_seen() else {}

    def there(self) -> bool:
        """Whether anything of it is left on this host."""
        return self.folder.exists() or netns.path(self.namespace).exists()

    def _rules(self) -> str | None:
        try:
            return self._rules_file.read_text()
        except OSError:
            return None

    def _udp_seen(self) -> bool:
        return (self.folder / "udp").exists()

    def _note_udp(self, used: bool) -> None:
        """Remember that connections may be left behind, also when the listener goes and this process with it."""
        if used:
            (self.folder / "udp").touch()
        else:
            (self.folder / "udp").unlink(missing_ok=True)

    def _write_program(self, text: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(self._ping, text, mode=0o755)


def health_of(balancer: LoadBalancer, rows: list[Row]) -> dict[str, bool | None]:
    """By member id, what HAProxy's checks say: works, does not, or (None) not known yet; nothing of members without checks."""
    by_name = {(row.proxy, row.server): row for row in rows}
    found: dict[str, bool | None] = {}
    for listener in balancer.live_listeners:
        for pool in balancer.pools_of(listener):
            for member in pool.live_members if pool.live_monitor else ():
                row = by_name.get((backend_name(pool.id, listener.id), member.id))
                if row is None or row.status == "no check":
                    continue
                # "UP 1/3" and "DOWN 1/2" are on their way; the word is what holds now. INI: the first check has not ended
                found[member.id] = None if row.check == "INI" else _WORKS.get(row.status.split()[0])
    return found


def udp_checks(balancer: LoadBalancer) -> list[Check]:
    """The checks that HAProxy cannot do: UDP-CONNECT, of the pools that a UDP listener uses."""
    found: dict[str, Check] = {}
    for listener in balancer.live_listeners:
        pool = balancer.pool(listener.pool_id)
        if pool is None or pool.live_monitor is None or pool.live_monitor.type != "UDP-CONNECT":
            continue
        monitor = pool.live_monitor
        for one in pool.live_members:
            address, port = one.monitor_address or one.address, one.monitor_port or one.port
            found[one.id] = Check(one.id, address, port, monitor.delay, monitor.timeout, monitor.rise, monitor.fall)
    return list(found.values())

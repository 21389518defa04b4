"""A place for server tests in a running local cloud: a network with a router, servers in both zones, and a look into them."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openstack

from moyai.core.paths import default_paths
from moyai.linux.process import Completed, run

# Runs in the cloud's namespaces: becomes a command inside the machine of a server.
_ENTER = """
import os, sys
from pathlib import Path
from moyai.linux import cgroups
from moyai.linux.nspawn import Host
folder, cgroup, words = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
argv = Host(cgroups.open_root(cgroup)).exec_argv(folder, folder.name, argv=words)
os.execvp(argv[0], argv)
"""


# Runs in the cloud's namespaces: ends the machine of a server at once, as the end of its host does.
_END = """
import sys
from moyai.linux import cgroups
cgroups.open_root(sys.argv[1]).group(sys.argv[2]).kill()
"""


def until(what: str, holds: Callable[[], object], *, within: float = 30.0) -> float:
    """Wait until ``holds()`` is true; returns how long that took."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < within, f"not within {within} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - start


@dataclass
class Site:
    """The network and the client connections; ``servers`` by name."""

    cloud: str
    user: Any
    admin: Any
    name: str = field(default_factory=lambda: f"srvtest-{uuid.uuid4().hex[:6]}")
    network: Any = None
    undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def folder(self) -> Path:
        return default_paths().state / "clouds" / self.cloud

    @property
    def inside(self) -> list[str]:
        """The words that put a command into the cloud's namespaces."""
        init = json.loads((self.folder / "run" / "init.json").read_text())["pid"]
        return ["nsenter", "-t", str(init), "-m", "-n", "-p", "--"]

    def build(self) -> None:
        net = self.user.network
        self.network = net.create_network(name=self.name)
        self.undo.callback(net.delete_network, self.network)
        subnet = net.create_subnet(name=self.name, network_id=self.network.id, ip_version=4, cidr="10.78.0.0/24")
        router = net.create_router(name=self.name)
        self.undo.callback(net.delete_router, router)
        net.add_interface_to_router(router, subnet_id=subnet.id)
        self.undo.callback(net.remove_interface_from_router, router, subnet_id=subnet.id)
        self.group = net.create_security_group(name=self.name)
        self.undo.callback(net.delete_security_group, self.group)
        net.create_security_group_rule(security_group_id=self.group.id, direction="ingress", protocol="icmp", ethertype="IPv4")

    def node_image(self) -> Any:
        return next(image for image in self.user.image.images() if image.name.startswith("moyai-node-"))

    def boot(
        self, name: str, *, zone: str = "az1", user_data: str = "", image: Any = None, flavor: str = "m1.tiny", tag: str = ""
    ) -> Any:
        """Ask for a server; it is deleted at the end of the module. ``tag``: of its network interface."""
        data = {"user_data": base64.b64encode(user_data.encode()).decode()} if user_data else {}
        server = self.user.compute.create_server(
            name=f"{self.name}-{name}",
            image_id=(image or self.node_image()).id,
            flavor_id=self.user.compute.find_flavor(flavor, ignore_missing=False).id,
            networks=[{"uuid": self.network.id, **({"tag": tag} if tag else {})}],
            security_groups=[{"name": self.name}],
            availability_zone=zone,
            **data,
        )
        self.undo.callback(self.delete, server)
        return server

    def active(self, *servers: Any) -> list[Any]:
        return [self.user.compute.wait_for_server(server, wait=180) for server in servers]

    def status(self, server: Any) -> tuple[str, str | None]:
        now = self.user.compute.get_server(server.id)
        return now.status, now.task_state

    def wait(self, server: Any, status: str, *, within: float = 60.0) -> float:
        return until(f"{server.name} {status}", lambda: self.status(server) == (status, None), within=within)

    def delete(self, server: Any) -> None:
        self.user.compute.delete_server(server.id, ignore_missing=True)
        until(f"{server.name} deleted", lambda: all(one.id != server.id for one in self.user.compute.servers()), within=90)

    def address(self, server: Any) -> str:
        addresses = self.user.compute.get_server(server.id).addresses
        return next(iter(addresses.values()))[0]["addr"]

    def machine(self, server: Any) -> Path:
        """The folder of the server's machine."""
        return next((self.folder / "machines").glob(f"*/{server.id}"))

    def sh(self, server: Any, command: str, *, check: bool = True) -> str:
        """Run a shell command inside the server's machine and return what it printed."""
        done = self.run(server, command)
        assert done.returncode == 0 or not check, f"{command}: {done.stderr.strip()}"
        return done.stdout.strip()

    def run(self, server: Any, command: str, *, timeout: float = 60.0) -> Completed:
        words = [sys.executable, "-c", _ENTER, str(self.machine(server)), self.cgroup, "/bin/sh", "-c", command]
        return run([*self.inside, *words], timeout=timeout, check=False)

    @property
    def cgroup(self) -> str:
        conf = (self.folder / "conf" / "nova-hv1.conf").read_text()
        return next(line.split("=", 1)[1].strip() for line in conf.splitlines() if line.startswith("cgroup"))

    def end(self, server: Any) -> None:
        """End the server's machine at once, also a frozen one; nobody has asked Nova for it."""
        run([*self.inside, sys.executable, "-c", _END, self.cgroup, server.id])

    def booted(self, server: Any) -> None:
        """Wait until its systemd has nothing left to start (also when cloud-init failed)."""
        done = ("running", "degraded")
        until(f"{server.name} booted", lambda: self.sh(server, "systemctl is-system-running", check=False) in done, within=90)

    def console(self, server: Any) -> str:
        return self.user.compute.get_server_console_output(server.id)["output"]

    def volume(self, size: int, **more: Any) -> Any:
        volume = self.user.block_storage.create_volume(size=size, name=self.name, availability_zone="az1", **more)
        self.undo.callback(self.user.block_storage.delete_volume, volume, ignore_missing=True)
        return self.user.block_storage.wait_for_status(volume, "available", wait=60)

    def left(self, server: Any) -> list[str]:
        """What is still there of a deleted server, in the cloud and on the host."""
        inside = subprocess.run(
            [*self.inside, "sh", "-c", "ip netns; ip -o link; ip -n hv2 -o link; cat /proc/mounts"],
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        loops = run(["losetup", "--list", "--noheadings", "--output", "BACK-FILE"]).stdout
        groups = run(["find", "/sys/fs/cgroup", "-type", "d", "-name", server.id]).stdout
        folders = [str(path) for path in (self.folder / "machines").glob(f"*/{server.id}")]
        texts = [*inside.splitlines(), *loops.splitlines(), *groups.splitlines(), *folders]
        return [line for line in texts if server.id in line]


@contextlib.contextmanager
def site(cloud: str) -> Generator[Site]:
    """A site that is taken away again, whatever happens."""
    made = Site(cloud, openstack.connect(cloud=cloud), openstack.connect(cloud=f"{cloud}-admin"))
    with made.undo:
        made.build()
        yield made

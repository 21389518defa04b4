"""A place for load-balancer tests in a running local cloud: a network with a router, and two members on Neutron ports.

Members are network namespaces of the cloud's own namespace that run the same server as in the kernel tests; the client is the
host itself, by a floating IP.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import openstack

from moyai.core.paths import default_paths
from moyai.linux.process import run

PORT = 8080
SERVER = Path(__file__).parents[1] / "netns" / "lb_member.py"


def init_of(cloud: str) -> int:
    """The process whose namespaces are the cloud."""
    file = default_paths().state / "clouds" / cloud / "run" / "init.json"
    return int(json.loads(file.read_text())["pid"])


@dataclass
class Site:
    """The network, and what was made in it."""

    cloud: str
    user: Any
    admin: Any
    folder: Path
    name: str = field(default_factory=lambda: f"lbtest-{uuid.uuid4().hex[:6]}")
    network: Any = None
    subnet: Any = None
    router: Any = None
    members: dict[str, str] = field(default_factory=dict[str, str])  # address → namespace
    servers: dict[str, subprocess.Popen[str]] = field(default_factory=dict[str, "subprocess.Popen[str]"])
    undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def inside(self) -> list[str]:
        """The words that put a command into the cloud's namespaces."""
        return ["nsenter", "-t", str(init_of(self.cloud)), "-m", "-n", "-p", "--"]

    def build(self) -> None:
        """Make network, subnet, router and two members."""
        net = self.user.network
        self.network = net.create_network(name=self.name)
        self.undo.callback(net.delete_network, self.network)
        self.subnet = net.create_subnet(name=self.name, network_id=self.network.id, ip_version=4, cidr="10.77.0.0/24")
        public = net.find_network("public", ignore_missing=False)
        self.router = net.create_router(name=self.name, external_gateway_info={"network_id": public.id})
        self.undo.callback(net.delete_router, self.router)
        net.add_interface_to_router(self.router, subnet_id=self.subnet.id)
        self.undo.callback(net.remove_interface_from_router, self.router, subnet_id=self.subnet.id)
        for _ in range(2):
            self.add_member()

    def add_member(self) -> str:
        """A port on the network, plugged into a namespace, with a server. Returns its address."""
        port = self.admin.network.create_port(
            network_id=self.network.id, name=self.name, is_port_security_enabled=False, binding_host_id="hv1"
        )
        self.undo.callback(self.admin.network.delete_port, port)
        address, namespace, tap = port.fixed_ips[0]["ip_address"], f"lbm-{port.id[:8]}", f"tap{port.id[:11]}"
        script = (
            f"set -e; ip netns add {namespace}; "
            f"ip link add {tap} mtu 1450 type veth peer name eth0 netns {namespace} address {port.mac_address} mtu 1450; "
            f"ip link set {tap} up; ip -n {namespace} link set lo up; ip -n {namespace} link set eth0 up; "
            f"ip -n {namespace} address add {address}/24 dev eth0; ip -n {namespace} route add default via 10.77.0.1"
        )
        run([*self.inside, "sh", "-c", script])
        self.undo.callback(run, [*self.inside, "sh", "-c", f"ip link delete {tap}; ip netns delete {namespace}"])
        self.members[address] = namespace
        self.start(address)
        return address

    def start(self, address: str, status: int = 200) -> None:
        """Start the member's server."""
        file = self.folder / address
        file.write_text(str(status))
        words = ["nsenter", f"--net=/run/netns/{self.members[address]}", sys.executable, str(SERVER), address, str(PORT)]
        server = subprocess.Popen(
            [*self.inside, *words, str(file), "udp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        self.servers[address] = server

    def stop(self, address: str) -> None:
        """Stop the member's server: it ends with its standard input."""
        if server := self.servers.pop(address, None):
            server.communicate("")

    def close(self) -> None:
        """Take everything away."""
        for address in list(self.servers):
            self.stop(address)
        self.undo.close()

    # ---- load balancers

    def tree(self, **listener: Any) -> dict[str, Any]:
        """A fully populated load balancer: one listener, one pool with monitor and all members."""
        protocol = listener.get("protocol", "TCP")
        pool = {
            "name": f"pool-{protocol}",
            "protocol": protocol,
            "lb_algorithm": "ROUND_ROBIN",
            "members": [{"address": one, "protocol_port": PORT, "subnet_id": self.subnet.id} for one in self.members],
            "healthmonitor": {
                "type": "UDP-CONNECT" if protocol == "UDP" else "TCP",
                "delay": 4 if protocol == "UDP" else 2,
                "timeout": 1,
                "max_retries": 1,
                "max_retries_down": 1,
            },
        }
        return {"name": "listener", "protocol": "TCP", "protocol_port": 80, "default_pool": pool, **listener}

    def create(self, *listeners: dict[str, Any], **balancer: Any) -> Any:
        """One call; the load balancer as the API answered."""
        made = self.user.load_balancer.create_load_balancer(
            name=self.name, vip_subnet_id=self.subnet.id, listeners=list(listeners), **balancer
        )
        self.undo.callback(self.delete, made.id)
        return made

    def wait(self, balancer: Any, within: float = 30.0, *, status: str = "ACTIVE") -> Any:
        """The load balancer once it has that provisioning status."""
        deadline = time.monotonic() + within
        while True:
            now = self.user.load_balancer.get_load_balancer(balancer.id)
            if now.provisioning_status == status:
                return now
            assert now.provisioning_status.startswith("PENDING_"), now.provisioning_status
            assert time.monotonic() < deadline, f"{now.provisioning_status} after {within} s"
            time.sleep(0.05)

    def delete(self, balancer_id: str) -> None:
        """Delete it with its children and wait until it is gone."""
        lb = self.user.load_balancer
        if lb.find_load_balancer(balancer_id) is None:
            return
        lb.delete_load_balancer(balancer_id, cascade=True)
        deadline = time.monotonic() + 30
        while lb.find_load_balancer(balancer_id) is not None:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def floating(self, balancer: Any, vip: str | None = None) -> str:
        """A floating IP on the VIP, or on that additional one."""
        net = self.user.network
        public = net.find_network("public", ignore_missing=False)
        made = net.create_ip(
            floating_network_id=public.id,
            port_id=balancer.vip_port_id,
            fixed_ip_address=vip or balancer.vip_address,
        )
        self.undo.callback(net.delete_ip, made)
        return cast(str, made.floating_ip_address)

    def statuses(self, balancer: Any) -> dict[str, str]:
        """Operating status by object: member addresses, and ``lb``, ``listener``, ``pool``."""
        tree = self.user.load_balancer.get(f"/lbaas/loadbalancers/{balancer.id}/status").json()["statuses"]["loadbalancer"]
        found = {"lb": tree["operating_status"]}
        for listener in tree["listeners"]:
            found["listener"] = listener["operating_status"]
            for pool in listener["pools"]:
                found["pool"] = pool["operating_status"]
                found.update({one["address"]: one["operating_status"] for one in pool["members"]})
        return found


def name_of(body: str) -> str:
    """Which member answered ("" for none)."""
    return next((line.removeprefix("name=") for line in body.splitlines() if line.startswith("name=")), "")


def curl(address: str, *options: str, port: int = 80) -> str:
    """What the host gets from there, an empty text for nothing."""
    return run(["curl", "-s", "-m", "3", *options, f"http://{address}:{port}/"], check=False).stdout


def first_answer(address: str, within: float = 20.0) -> str:
    """Which member answers first: a floating IP leads somewhere only some time after it was made."""
    deadline = time.monotonic() + within
    while not (name := name_of(curl(address))):
        assert time.monotonic() < deadline, f"{address} does not answer within {within} s"
        time.sleep(0.1)
    return name


@contextlib.contextmanager
def site(cloud: str, folder: Path) -> Generator[Site]:
    """Build it, take it away."""
    made = Site(cloud, openstack.connect(cloud=cloud), openstack.connect(cloud=f"{cloud}-admin"), folder)
    try:
        made.build()
        yield made
    finally:
        made.close()

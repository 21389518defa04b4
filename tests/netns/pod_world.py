"""Machines of a pod network: each is a network namespace on one switch, with a pod behind it in a namespace of its own."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from moyai.kube.resources import Json
from moyai.linux import netns
from moyai.linux.process import run

POD_CIDR = "10.244.0.0/16"


@dataclass(frozen=True)
class Machine:
    """``net``: its namespace. ``pod``: its pod's."""

    number: int
    prefix: str

    @property
    def name(self) -> str:
        return f"n{self.number}"

    @property
    def net(self) -> str:
        return f"{self.prefix}n{self.number}"

    @property
    def pod(self) -> str:
        return f"{self.prefix}p{self.number}"

    @property
    def address(self) -> str:
        return f"172.17.0.{20 + self.number}"

    @property
    def pod_cidr(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def pod_address(self) -> str:
        return f"10.244.{self.number}.2"

    def object(self) -> Json:
        """Its Node, as a kubelet and a cloud controller manager make it."""
        return node_object(self.name, self.address, pod_cidr=self.pod_cidr)


def node_object(name: str, address: str, *, pod_cidr: str, annotations: dict[str, str] | None = None) -> Json:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "annotations": annotations or {}},
        "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }


def ip(namespace: str, *lines: str) -> str:
    """Lines of `ip` in the namespace; returns what they print."""
    return "".join(run(["ip", "-n", namespace, *line.split()], timeout=20).stdout for line in lines)


@contextmanager
def machines(count: int, *, mtu: int = 1500, pods: bool = True) -> Generator[list[Machine]]:
    prefix = f"pn{os.getpid()}-"
    switch = f"{prefix}sw"
    made = [Machine(number, prefix) for number in range(1, count + 1)]
    names = [switch, *(one.net for one in made), *(one.pod for one in made if pods)]
    try:
        for name in names:
            netns.add(name)
        ip(switch, "link add br0 type bridge", "link set br0 up")
        for one in made:
            ip(switch, f"link add s{one.number} mtu {mtu} type veth peer name eth0 netns {one.net} mtu {mtu}")
            ip(switch, f"link set s{one.number} master br0 up")
            ip(one.net, f"address add {one.address}/24 dev eth0", "link set eth0 up")
            netns.sysctl(one.net, "net/ipv4/ip_forward", value="1")
            if pods:
                ip(one.net, f"link add cni0 type veth peer name eth0 netns {one.pod}")
                ip(one.net, f"address add 10.244.{one.number}.1/24 dev cni0", "link set cni0 up")
                ip(one.pod, f"address add {one.pod_address}/24 dev eth0", "link set eth0 up")
                ip(one.pod, f"route add default via 10.244.{one.number}.1")
        yield made
    finally:
        for name in names:
            netns.remove(name)


def ping(source: Machine, target: Machine, *, size: int = 56, count: int = 1) -> bool:
    """Whether an unfragmented ping of so many bytes gets from pod to pod, with its answer."""
    words = ["ping", "-c", str(count), "-i", "0.2", "-W", "1", "-M", "do", "-s", str(size), target.pod_address]
    return run([*netns.prefix(source.pod), *words], timeout=20, check=False).returncode == 0

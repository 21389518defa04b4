"""Services whose addresses nodes announce: reached from the cloud's router, kept over restarts, taken over when a node dies."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from typing import Any

import pytest

from moyai.linux.process import run
from moyai.plan.announce.metallb_words import ANNOUNCED_CLASS, NAMESPACE, lease_name
from tests.cloud.server_site import Site
from tests.e2e.disks import Zoned, until
from tests.e2e.test_pod_networks import SERVER, agents_ready, asks

pytestmark = pytest.mark.long
ADDRESSES = ("10.8.0.96", "10.8.0.97")
ADDRESS = ADDRESSES[0]
PORT = 8080
#: Seconds from the death of the owner to an answer by another node.
ANSWERS_WITHIN = 20.0
#: In the router: asks for an address by ARP 30 times, and prints the MAC addresses that answered each question.
PROBE = """
import json, socket, struct, sys, time
name, address = sys.argv[1:]
own = next(line.split()[3].partition("/")[0] for line in __import__("os").popen(f"ip -o -4 addr show {name}"))
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
raw.bind((name, 0x0806))
raw.settimeout(0.05)
mac = raw.getsockname()[4]
found = []
for _ in range(30):
    ends = (mac, socket.inet_aton(own), bytes(6), socket.inet_aton(address))
    raw.send(b"\\xff" * 6 + mac + b"\\x08\\x06" + struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, *ends))
    answers, end = set(), time.monotonic() + 0.1
    while time.monotonic() < end:
        try:
            frame = raw.recv(64)
        except TimeoutError:
            continue
        if frame[:6] == mac and frame[20:22] == b"\\x00\\x02" and frame[28:32] == socket.inet_aton(address):
            answers.add(frame[22:28].hex(":"))
    found.append(sorted(answers))
print(json.dumps(found))
"""


class Announced(Zoned):
    """Two workers, and a range that they announce."""

    def write(self, workers: int) -> None:
        spec = {
            "cloud": self.cloud,
            "nodePools": [{"name": "workers", "replicas": 2}],
            "network": {"mode": "vxlan"},
            "services": {"announce": {"ranges": ["10.8.0.96/28"]}},
        }
        (self.folder / "cluster.yaml").write_text(json.dumps({"metadata": {"name": self.name}, "spec": spec}))

    def service(self, name: str, **spec: Any) -> None:
        ports = [{"port": PORT}]
        given = {
            "type": "LoadBalancer",
            "loadBalancerClass": ANNOUNCED_CLASS,
            "selector": {"app": "web"},
            "ports": ports,
            **spec,
        }
        self.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": given})

    def address(self, name: str) -> str:
        return self.kubectl("get", "service", name, "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")

    def events(self, *chosen: str) -> list[str]:
        shown = json.loads(self.kubectl("get", "events", "-A", "-o", "json"))["items"]
        return [f"{one['reason']}: {one['message']}" for one in shown if one["reason"] in chosen]

    def owner(self) -> str:
        return self.kubectl("get", "lease", lease_name(ADDRESS), "-n", NAMESPACE, "-o", "jsonpath={.spec.holderIdentity}")

    # --- from the cloud's router, which is no machine of the cluster

    def in_router(self, *words: str) -> str:
        router = next(one for one in self.provider.routers.routers() if one.name.startswith(f"{self.name}-"))
        site = Site(self.cloud, None, None)
        return run([*site.inside, "ip", "netns", "exec", f"qrouter-{router.id}", *words], timeout=60, check=False).stdout

    def answers(self) -> bool:
        """Whether a new connection is answered."""
        words = ["timeout", "2", "bash", "-c", f"exec 3<>/dev/tcp/{ADDRESS}/{PORT} && head -c 4 <&3"]
        return bool(self.in_router(*words))

    def probe(self) -> list[list[str]]:
        device = next(
            line.split()[0].partition("@")[0] for line in self.in_router("ip", "-br", "link").splitlines() if line[:3] == "qr-"
        )
        return json.loads(self.in_router("python3", "-c", PROBE, device, ADDRESS))


@pytest.fixture(scope="module")
def cluster(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Announced]:
    made = Announced(tmp_path_factory.mktemp("announced"), cloud_name)
    with made.removed_at_end():
        made.up()
        pool = {
            "apiVersion": "metallb.io/v1beta1",
            "kind": "IPAddressPool",
            "metadata": {"name": "main", "namespace": NAMESPACE},
        }
        advert = {**pool, "kind": "L2Advertisement"}
        made.apply({**pool, "spec": {"addresses": ["10.8.0.96/31"]}}, {**advert, "spec": {"ipAddressPools": ["main"]}})
        # where no machine dies
        server = made.pod("control-plane-0", SERVER)
        made.pod_address(server)
        made.kubectl("label", "pod", server, "app=web")
        yield made


def test_a_service_answers_at_an_address_of_its_pool(cluster: Announced) -> None:
    assert json.loads(cluster.moyai("plan", str(cluster.folder), "--output", "json").stdout)["steps"] == []
    cluster.service("web")
    until("the Service has an address", lambda: cluster.address("web") == ADDRESS, within=30)
    until("it answers in the router", cluster.answers, within=30)
    # a client in the cluster is led there by kube-proxy
    assert cluster.python("workers-1", asks(ADDRESS)) != ""
    shown = json.loads(cluster.kubectl("get", "servicel2statuses", "-n", NAMESPACE, "-o", "json"))["items"]
    assert [(one["status"]["node"], one["status"]["serviceName"]) for one in shown] == [(cluster.owner(), "web")]
    assert len({tuple(one) for one in cluster.probe()}) == 1
    state = json.loads(cluster.moyai("net", "status", "--output", "json").stdout)
    expected = {"service": "default/web", "address": ADDRESS, "pool": "main", "node": cluster.owner(), "problem": ""}
    assert (state["problems"], state["announced"]) == ([], [expected])


def test_a_pool_that_has_run_dry_says_so_and_gives_what_is_freed(cluster: Announced) -> None:
    cluster.service("second")
    until("the second has the other address", lambda: cluster.address("second") == ADDRESSES[1], within=30)
    cluster.service("third")
    until("the events say so", lambda: cluster.events("AllocationFailed") and cluster.events("PoolExhausted"), within=30)
    assert cluster.events("PoolExhausted") == ["PoolExhausted: No address is left: 2 of 2 are given"]
    assert "no address is left in main" in cluster.events("AllocationFailed")[0]
    cluster.kubectl("delete", "service", "second")
    until("the third has it", lambda: cluster.address("third") == ADDRESSES[1], within=60)
    cluster.kubectl("delete", "service", "third")


def test_the_address_is_kept_over_restarts_of_all_controllers(cluster: Announced) -> None:
    for name in ("deployment/moyai-cloud-controller-manager", "daemonset/moyai-agent"):
        cluster.kubectl("rollout", "restart", name, "-n", "kube-system")
        cluster.kubectl("rollout", "status", name, "-n", "kube-system", "--timeout=180s")
    until("it answers", cluster.answers, within=30)
    assert cluster.address("web") == ADDRESS


def test_an_agent_that_stood_still_answers_no_more_when_it_goes_on(cluster: Announced) -> None:
    until("the agents run", lambda: agents_ready(cluster), within=60)
    owner = cluster.owner()
    agent = "^[^ ]*python3[^ ]* .*moyai agent"
    cluster.moyai("ssh", owner, f"sudo pkill -STOP -f '{agent}'")
    until("another owner", lambda: cluster.owner() not in ("", owner), within=60)
    cluster.moyai("ssh", owner, f"sudo pkill -CONT -f '{agent}'")
    answers = cluster.probe()
    assert all(len(one) <= 1 for one in answers), answers
    (answer,) = {mac for one in answers for mac in one}
    port = next(one for one in cluster.provider.networks.ports() if one.name == cluster.owner())
    assert answer == cluster.moyai("ssh", port.name, "cat /sys/class/net/eth0/address").stdout.strip()
    assert cluster.answers()


def test_another_node_answers_soon_after_the_owner_died(cluster: Announced) -> None:
    until("the agents run", lambda: agents_ready(cluster), within=60)
    owner = cluster.owner()
    assert cluster.answers()
    server = cluster.server(owner)
    # a machine without power says nothing any more
    cluster.inside(server, "ip link set eth0 down")
    died = time.monotonic()
    cluster.crash(server)
    until("another owner", lambda: cluster.owner() not in ("", owner), within=60)
    until("it answers", cluster.answers, within=60)
    seconds = time.monotonic() - died
    print(f"\n{seconds:.1f} s from the death of {owner} to an answer by {cluster.owner()}")
    assert seconds < ANSWERS_WITHIN
    assert cluster.address("web") == ADDRESS

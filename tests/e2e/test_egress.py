"""An egress address on a real cluster without a tunnel between pods: pods of both workers are seen outside with it, another
worker takes it over, and a floating IP comes and goes with it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from moyai.cloud.openstack import connect
from moyai.images import references
from moyai.plan.egress_rules import FENCE
from tests.cloud.server_site import Site
from tests.e2e.disks import until
from tests.e2e.test_announced import Announced

pytestmark = pytest.mark.long

EGRESS, PORT = "10.8.0.97", 7007
#: In the router: says to each caller with which address it is seen.
SERVER = """
import socket
listening = socket.create_server(("", PORT))
while True:
    connection, caller = listening.accept()
    connection.sendall(caller[0].encode())
    connection.close()
"""
CALLER = """
import socket, time
while True:
    try:
        connection = socket.create_connection(("ADDRESS", PORT), 2)
        print(connection.recv(99).decode(), flush=True)
        connection.close()
    except OSError:
        print("nothing", flush=True)
    time.sleep(0.3)
"""


class Leaving(Announced):
    def write(self, workers: int) -> None:
        super().write(workers)
        file = self.folder / "cluster.yaml"
        spec = json.loads(file.read_text())
        spec["spec"]["network"]["mode"] = "host-gw"
        file.write_text(json.dumps(spec))

    def external(self) -> str:
        """The router's own address outside."""
        lines = self.in_router("ip", "-4", "-o", "address").splitlines()
        return next(line.split()[3].partition("/")[0] for line in lines if " qg-" in line)

    @contextmanager
    def listening(self) -> Generator[None]:
        router = next(one for one in self.provider.routers.routers() if one.name.startswith(f"{self.name}-"))
        words = [one for one in Site(self.cloud, None, None).inside if one != "-p"]
        code = SERVER.replace("PORT", str(PORT))
        started = subprocess.Popen([*words, "ip", "netns", "exec", f"qrouter-{router.id}", "python3", "-c", code])
        try:
            yield
        finally:
            started.terminate()
            started.wait(10)

    def caller(self, name: str, namespace: str, *, node: str) -> None:
        code = CALLER.replace("ADDRESS", self.external()).replace("PORT", str(PORT))
        container = {"name": "a", "image": references.MOYAI, "command": ["python3", "-u", "-c", code]}
        spec = {"nodeName": f"{self.name}-{node}", "containers": [container]}
        meta = {"name": name, "namespace": namespace}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    def seen(self, name: str, namespace: str) -> str:
        """With which address the pod was seen last."""
        return self.kubectl("-n", namespace, "logs", name, "--tail=1").strip()

    @property
    def egress_owner(self) -> str:
        return self.kubectl("-n", "shop", "get", "egress", "shop", "-o", "jsonpath={.status.node}")


@pytest.fixture(scope="module")
def leaving(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Leaving]:
    made = Leaving(tmp_path_factory.mktemp("egress"), cloud_name)
    with made.removed_at_end():
        made.up()
        with made.listening():
            yield made


def test_pods_of_the_namespace_are_seen_with_its_address_and_a_silent_death_moves_it(leaving: Leaving) -> None:
    leaving.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    address = {"apiVersion": "moyai.dev/v1alpha1", "kind": "EgressAddress", "spec": {"address": EGRESS}}
    leaving.apply({**address, "metadata": {"name": "shop", "namespace": "shop"}})
    for number in (0, 1):
        leaving.caller(f"caller-{number}", "shop", node=f"workers-{number}")
    leaving.caller("other", "default", node="workers-0")
    until("the pods to be seen", lambda: {leaving.seen(f"caller-{n}", "shop") for n in (0, 1)} == {EGRESS}, within=60)
    assert leaving.seen("other", "default") not in (EGRESS, "nothing", "")
    owner = leaving.egress_owner
    other = next(n for n in (0, 1) if not owner.endswith(f"workers-{n}"))
    victim = next(one for one in connect(leaving.cloud).machines.servers() if one.name == owner)
    openstack = ("openstack", "--os-cloud", leaving.cloud, "server")
    leaving.moyai(*openstack, "pause", victim.id)
    paused = time.monotonic()
    try:
        until("another owner", lambda: leaving.egress_owner not in ("", owner), within=20)
        print(f"another owner {time.monotonic() - paused:.1f} s after the pause was asked for")
        until("the pod to be seen again", lambda: leaving.seen(f"caller-{other}", "shop") == EGRESS, within=10)
    finally:
        leaving.moyai(*openstack, "unpause", victim.id)
    until("one node alone to have the address", lambda: owners(leaving) == 1, within=20)


def test_its_floating_ip_comes_and_goes_with_the_object(leaving: Leaving) -> None:
    def shown() -> str:
        return leaving.kubectl("-n", "shop", "get", "egress", "shop", "-o", "jsonpath={.status.floatingIP}")

    leaving.kubectl("-n", "shop", "patch", "egress", "shop", "--type=merge", "-p", '{"spec": {"floatingIP": "auto"}}')
    until("the floating IP", shown, within=60)
    (floating,) = [one for one in leaving.provider.addresses.floating_ips() if one.address == shown()]
    assert floating.fixed_ip == EGRESS
    assert leaving.kubectl("-n", "shop", "get", "egress").split("\n")[1].split()[1:] == [
        EGRESS,
        leaving.egress_owner,
        floating.address,
    ]
    leaving.kubectl("-n", "shop", "patch", "egress", "shop", "--type=merge", "-p", '{"spec": {"floatingIP": null}}')
    until("it to be gone", lambda: not shown(), within=60)
    assert floating.id not in {one.id for one in leaving.provider.addresses.floating_ips()}


def owners(leaving: Leaving) -> int:
    words = ("nft", "list", "set", "ip", FENCE, "held")
    shown = (leaving.moyai("ssh", f"workers-{n}", *words).stdout for n in (0, 1))
    return sum(EGRESS in one for one in shown)

"""The cloud's APIs gone for minutes under a running cluster: its machines, networks, load balancers and disks go on.

For the first half nothing answers the cluster's machines any more, for the second half every connection is refused. Meanwhile
pods answer through their load balancer, no node is tainted, removed or not Ready, no volume is detached, no Service loses its
address, no log is flooded, no memory grows without end. After the return, what waited is made within a minute, and nothing
was removed.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moyai.core.paths import default_paths
from moyai.linux import proc
from moyai.linux.process import run as run_program
from moyai.localcloud import start_stop as local
from moyai.localcloud.layout import EXTERNAL_BRIDGE, PORTS, CloudPaths
from tests.chaos.load import Load, apply, controllers, prepare
from tests.chaos.results import Result, Results, insist
from tests.chaos.site import Place, census, eventually

NAME = "outage"
#: Seconds within which what waited is made after the return.
MADE = 60.0
#: Lines that one container may log in a minute, and bytes that it may use more than before.
LINES, GROWTH = 60.0, 64 << 20
_TABLE = "moyai_chaos"


@dataclass(frozen=True)
class Look:
    """What Kubernetes shows of the cluster's machines, disks and addresses."""

    nodes: frozenset[tuple[str, str, str]]
    attachments: frozenset[tuple[str, str]]
    addresses: frozenset[tuple[str, str]]


def run(results: Results, place: Place, *, folder: Path, minutes: float) -> None:
    """``minutes``: how long the cloud is gone from a running cluster."""
    kept = Load(place, folder, name="kept", services=1, claims=1)
    waiting = Load(place, folder, name="waiting", services=1, claims=1)
    with results.case(NAME, f"the cloud's APIs gone for {minutes:g} minutes") as result:
        prepare(place)
        kept.make()
        _mount(place, kept)
        eventually(kept.addresses, 180, late=lambda: "the first Service has no address")
        (address,) = kept.addresses().values()
        eventually(lambda: _answers(address), 60, late=lambda: f"{address} does not answer")
        objects, look, memory = census(place.cloud), _look(place), _memory(place)
        gone = datetime.now(UTC)
        with result.timed("gone"), _cut_off(place.cloud) as answer:
            waiting.make()
            for how in ("drop", "reject with tcp reset"):
                answer(how)
                _watch(place, address, before=look, seconds=minutes * 30)
        began = time.monotonic()
        eventually(waiting.addresses, MADE, late=lambda: "the waiting Service has no address")
        result.times["Service after the return"] = time.monotonic() - began
        eventually(waiting.bound, MADE, late=lambda: "the waiting claim has no volume")
        result.times["claim after the return"] = time.monotonic() - began
        _quiet(place, gone, minutes=minutes, result=result)
        _small(memory, _memory(place), result=result)
        insist(not objects - census(place.cloud), f"removed: {objects - census(place.cloud)}")


@contextlib.contextmanager
def _cut_off(cloud: str) -> Generator[Callable[[str], None]]:
    """The cloud's machines reach none of its services while the block runs; their own networks go on.

    The block gets a call that changes how their packets end, in one step: nft's words.
    """
    paths = CloudPaths(default_paths().cloud(cloud))
    config, init = local.recorded(paths), proc.ProcessRecord.load(paths.init_record)
    assert config is not None
    assert init is not None
    inside = ["nsenter", f"--net=/proc/{init.pid}/ns/net", "nft"]
    ports = ", ".join(str(port) for port in sorted(set(PORTS.values())))

    def answer(verdict: str) -> None:
        rules = f"""add table inet {_TABLE}
delete table inet {_TABLE}
table inet {_TABLE} {{
  chain input {{
    type filter hook input priority -20; policy accept;
    iifname {EXTERNAL_BRIDGE} ip daddr {config.address} tcp dport {{ {ports} }} {verdict}
  }}
}}
"""
        run_program([*inside, "-f", "-"], stdin=rules)

    answer("drop")
    try:
        yield answer
    finally:
        run_program([*inside, "delete", "table", "inet", _TABLE])


def _mount(place: Place, load: Load) -> None:
    """A pod that has the volume of each claim mounted."""
    eventually(lambda: len(load.bound()) == load.claims, 180, late=lambda: "the first claim has no volume")
    names = sorted(load.bound())
    container = {
        "name": "app",
        "image": "nginx",
        "volumeMounts": [{"name": name, "mountPath": f"/data/{name}"} for name in names],
    }
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names]
    meta = {"name": "holder", "namespace": "default"}
    apply(place, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container], "volumes": volumes}})
    place.cluster.kubectl("wait", "pod/holder", "--for=condition=Ready", "--timeout=180s")


def _look(place: Place) -> Look:
    def get(kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(place.cluster.kubectl("get", kind, "-A", "-o", "json"))["items"]
        return found

    return Look(
        frozenset(
            (
                one["metadata"]["name"],
                next(state["status"] for state in one["status"]["conditions"] if state["type"] == "Ready"),
                json.dumps(one["spec"].get("taints", []), sort_keys=True),
            )
            for one in get("nodes")
        ),
        frozenset((one["metadata"]["name"], str(one["status"]["attached"])) for one in get("volumeattachments")),
        frozenset(
            (one["metadata"]["name"], ingress["ip"])
            for one in get("services")
            for ingress in one["status"].get("loadBalancer", {}).get("ingress", [])
        ),
    )


def _watch(place: Place, address: str, *, before: Look, seconds: float) -> None:
    """Broken as soon as a pod does not answer, or a node, an attachment or an address is not as it was."""
    end, failed = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for _ in range(10):
            # a single answer may be late on a busy machine; two in a row are an outage
            failed = 0 if _answers(address) else failed + 1
            insist(failed < 2, f"{address} does not answer any more")
            time.sleep(1)
        now = _look(place)
        insist(now == before, f"was {before}, is {now}")


def _answers(address: str) -> bool:
    done = run_program(["curl", "-s", "-o", "/dev/null", "-m", "5", f"http://{address}/"], check=False)
    return done.returncode == 0


def _quiet(place: Place, since: datetime, *, minutes: float, result: Result) -> None:
    """No container of ours logs more than so many lines a minute, counted from when the cloud went."""
    most = 0.0
    for pod in (pod for pods in controllers(place).values() for pod in pods):
        words = ("-n", "kube-system", "logs", pod, "--all-containers", f"--since-time={since:%Y-%m-%dT%H:%M:%SZ}")
        most = max(most, len(place.cluster.kubectl(*words).splitlines()) / minutes)
    result.facts.append(f"at most {most:.0f} lines a minute in a log")
    insist(most <= LINES, f"a log has {most:.0f} lines a minute")


def _memory(place: Place) -> dict[str, int]:
    """Container → the bytes that it works with, of the pods that talk to the cloud."""
    found: dict[str, int] = {}
    pods = {pod for pods in controllers(place).values() for pod in pods}
    for node in place.cluster.kubectl("get", "nodes", "-o", "name").split():
        text = place.cluster.kubectl("get", "--raw", f"/api/v1/{node.replace('node/', 'nodes/')}/proxy/stats/summary")
        for one in json.loads(text)["pods"]:
            if one["podRef"]["name"] in pods:
                for container in one["containers"]:
                    found[f"{one['podRef']['name']} {container['name']}"] = container["memory"]["workingSetBytes"]
    return found


def _small(before: dict[str, int], after: dict[str, int], *, result: Result) -> None:
    insist(before.keys() == after.keys(), f"other containers than before: {sorted(before.keys() ^ after.keys())}")
    name, most = max(((name, after[name] - size) for name, size in before.items()), key=lambda one: one[1])
    result.facts.append(f"at most {most / (1 << 20):.0f} MiB more in a container")
    insist(most <= GROWTH, f"{name} grew by {most / (1 << 20):.0f} MiB")

"""Watches a cluster start, from outside and in the same way for every builder: one watch of nodes, one of pods.

Always holds: a milestone is the moment at which the API server told of it (watches, no polling, so that looking costs
next to nothing); moments are seconds since 1970, as those in the machines' journals are.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import re
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from moyai.core.errors import MoyaiError
from moyai.kube.objects import UNINITIALIZED, condition
from moyai.kube.quick import KubeApi
from moyai.kube.resources import NODES, PODS, Json

API, JOINED, READY, KNOWN, PROXY, DNS = (
    "API ready",
    "nodes joined",
    "nodes Ready",
    "nodes initialised",
    "kube-proxy runs",
    "CoreDNS runs",
)
#: CoreDNS as kubeadm makes it.
_DNS_REPLICAS = 2
NodeHook = Callable[[KubeApi, Json], None]


class Watcher:
    """``marks``: milestone → when. ``hook`` is called with every node that was added or changed."""

    def __init__(self, kubeconfig: Path, nodes: int, *, hook: NodeHook | None = None) -> None:
        self.marks: dict[str, float] = {}
        self._file, self._count, self._hook = kubeconfig, nodes, hook
        self._nodes: dict[str, Json] = {}
        self._pods: dict[str, Json] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._file.exists():
            if self._stop.wait(0.05):
                return
        api = KubeApi.from_file(self._file)
        while not api.ready(timeout=1):
            if self._stop.wait(0.1):
                return
        self._mark(API)
        targets = {NODES.path(): self._nodes, PODS.path("kube-system"): self._pods}
        for path, seen in targets.items():
            threading.Thread(target=self._follow, args=(api, path, seen), daemon=True).start()

    def _follow(self, api: KubeApi, path: str, seen: dict[str, Json]) -> None:
        while not self._stop.is_set():
            seen.clear()
            # a watch without a version begins with all that is there; it may break while the API server starts
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                self._stream(api, path, seen=seen)
            self._stop.wait(0.2)

    def _stream(self, api: KubeApi, path: str, *, seen: dict[str, Json]) -> None:
        connection = _connect(self._file)
        try:
            connection.request("GET", f"{path}?watch=true", headers={"Accept": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                return
            while not self._stop.is_set() and (line := answer.readline()):
                event: Json = json.loads(line)
                item: Json = event["object"]
                if event["type"] == "ERROR":
                    return
                with self._lock:
                    if event["type"] == "DELETED":
                        seen.pop(item["metadata"]["name"], None)
                    else:
                        seen[item["metadata"]["name"]] = item
                    self._judge()
                if item.get("kind") == "Node" and event["type"] != "DELETED" and self._hook:
                    with contextlib.suppress(MoyaiError):  # changed meanwhile: the next event tells how it is now
                        self._hook(api, item)
        finally:
            connection.close()

    def _judge(self) -> None:
        nodes, pods = list(self._nodes.values()), list(self._pods.values())
        ready = [node for node in nodes if condition(node, "Ready")]
        known = [node for node in nodes if not any(taint["key"] == UNINITIALIZED for taint in _taints(node))]
        reached = {
            JOINED: len(nodes) >= self._count,
            READY: len(ready) >= self._count,
            KNOWN: len(known) >= self._count,
            PROXY: _running(pods, "kube-proxy") >= self._count,
            DNS: _running(pods, "kube-dns") >= _DNS_REPLICAS,
        }
        for name, yes in reached.items():
            if yes:
                self._mark(name)
        if set(reached) <= set(self.marks):
            self.done.set()

    def _mark(self, name: str) -> None:
        self.marks.setdefault(name, time.time())


def admit(api: KubeApi, node: Json) -> None:
    """What a cloud controller manager must do at least, at no cost: the node exists, so its first taint goes."""
    rest = [taint for taint in _taints(node) if taint["key"] != UNINITIALIZED]
    if rest != _taints(node):
        version = node["metadata"]["resourceVersion"]
        api.patch(
            NODES,
            node["metadata"]["name"],
            body={"metadata": {"resourceVersion": version}, "spec": {"taints": rest or None}},
        )


def _taints(node: Json) -> list[Json]:
    return cast("list[Json]", node["spec"].get("taints") or [])


def _running(pods: list[Json], app: str) -> int:
    mine = [pod for pod in pods if pod["metadata"].get("labels", {}).get("k8s-app") == app]
    return sum(bool(condition(pod, "Ready")) for pod in mine)


def _connect(kubeconfig: Path) -> http.client.HTTPSConnection:
    config: Any = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "client.pem"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as stream:
            stream.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
        context.load_cert_chain(file)
    host, _, port = str(cluster["server"]).removeprefix("https://").rpartition(":")
    return http.client.HTTPSConnection(host, int(port), timeout=300, context=context)


#: What a machine is asked for its journal: the first line of this boot, and what the bootstrap said.
JOURNAL = "journalctl -b -o short-unix --no-pager | sed -n 1p; journalctl -b -o short-unix --no-pager -u moyai-bootstrap"
_SAID = re.compile(r"^(\d+\.\d+) .*?\bmoyai: (.+)$")
_FIRST = re.compile(r"^(\d+\.\d+) ")


def journal(text: str) -> dict[str, float]:
    """What a machine said when, by its journal: ``boot`` and the lines of its bootstrap, each when it came first."""
    marks: dict[str, float] = {}
    for line in text.splitlines():
        if not marks and (first := _FIRST.match(line)):
            marks["boot"] = float(first[1])
        if said := _SAID.match(line):
            marks.setdefault(said[2], float(said[1]))
    return marks


def machine_phases(journals: Mapping[str, Mapping[str, float]], plane: str) -> dict[str, float]:
    """The moments inside the machines, of the control plane and of the last worker."""
    control = journals.get(plane, {})
    workers = [marks for name, marks in journals.items() if name != plane]
    found: dict[str, float] = {}
    for phase, text in (("user data runs", "unsealing the authorities"), ("kubeadm init begins", "kubeadm init")):
        if text in control:
            found[phase] = control[text]
    if "boot" in control:
        found["control plane boots"] = control["boot"]
    if "kubeadm init done" in control:
        found["kubeadm init done"] = control["kubeadm init done"]
    for phase, text in (("workers join", "kubeadm join"), ("kubeadm joins done", "bootstrap done")):
        moments = [marks[text] for marks in workers if text in marks]
        if workers and len(moments) == len(workers):
            found[phase] = max(moments)
    return found

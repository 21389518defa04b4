"""A cluster with its own disks in mind: two workers in zone az1, one in az2; and a database in it that acknowledges its writes.

The database is SQLite with ``synchronous=FULL`` behind HTTP, on a disk of its own: POST /N stores the number N and answers when
it is on disk, GET / lists what is there, GET /check asks SQLite whether the file is whole.
"""

from __future__ import annotations

import base64
import functools
import http.client
import json
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from moyai.ccm.manifests import NAME as CCM
from moyai.ccm.manifests import NAMESPACE as CCM_NAMESPACE
from moyai.cloud.model import Server
from moyai.cloud.openstack import OpenStackCloud, connect
from moyai.core.ids import cluster_tag
from moyai.core.paths import default_paths
from moyai.images.references import MOYAI
from moyai.kube.objects import parse_attachment, parse_deployment, parse_service
from moyai.kube.quick import KubeApi
from moyai.kube.resources import DEPLOYMENTS, SECRETS, SERVICES, VOLUME_ATTACHMENTS, Json
from moyai.lifecycle.record import Record
from moyai.linux.process import run
from tests.cloud.server_site import Site
from tests.e2e.driver import Cluster

DATABASE = r"""
import http.server, json, os, signal, socketserver, sqlite3, threading
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # PID 1 would ignore it, and hold up its machine's power-off
db = sqlite3.connect("/data/rows.db", check_same_thread=False, isolation_level=None)
db.execute("PRAGMA journal_mode=DELETE"); db.execute("PRAGMA synchronous=FULL")
db.execute("CREATE TABLE IF NOT EXISTS rows (n INTEGER PRIMARY KEY)")
lock = threading.Lock()
class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        with lock: db.execute("INSERT OR IGNORE INTO rows VALUES (?)", (int(self.path[1:]),))
        self.say("stored")
    def do_GET(self):
        with lock:
            if self.path == "/check": self.say(db.execute("PRAGMA integrity_check").fetchone()[0])
            else: self.say(json.dumps([row[0] for row in db.execute("SELECT n FROM rows ORDER BY n")]))
    def say(self, text):
        data = text.encode()
        self.send_response(200); self.send_header("Content-Length", str(len(data))); self.end_headers(); self.wfile.write(data)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 8080), Web).serve_forever()
"""


class Zoned(Cluster):
    """Pool ``a`` is in az1, pool ``b`` in az2; the control plane is in az1 (the first zone)."""

    def write(self, workers: int) -> None:
        """``workers``: of pool ``a``."""
        pools = [{"name": "a", "zones": ["az1"], "replicas": workers}, {"name": "b", "zones": ["az2"], "replicas": 1}]
        spec = {"cloud": self.cloud, "controlPlane": {"zone": "az1"}, "nodePools": pools}
        (self.folder / "cluster.yaml").write_text(json.dumps({"metadata": {"name": self.name}, "spec": spec}))

    @property
    def api(self) -> KubeApi:
        return KubeApi.from_file(default_paths().clusters / self.name / "kubeconfig")

    @functools.cached_property
    def provider(self) -> OpenStackCloud:
        return connect(self.cloud)

    def server(self, node: str) -> Server:
        record = Record.open(default_paths(), self.name)
        assert record is not None
        return next(one for one in self.provider.machines.servers(tag=cluster_tag(record.uid)) if one.name == node)

    def crash(self, server: Server) -> None:
        """Kill the machine's supervisor, and with it, at once, everything in the machine."""
        site = Site(self.cloud, None, None)
        run([*site.inside, "kill", "-9", (site.machine(server) / "pid").read_text().strip()])

    def inside(self, server: Server, command: str) -> str:
        return Site(self.cloud, None, None).sh(server, command)

    def namespace(self, name: str) -> Json:
        return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def database(namespace: str, *, pool: str = "a") -> Json:
    """A StatefulSet of one, with a disk of 1 GiB of the default class."""
    container = {
        "name": "db",
        "image": MOYAI,
        "imagePullPolicy": "Never",
        "command": ["python3", "-u", "-c", DATABASE],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "readinessProbe": {"httpGet": {"path": "/check", "port": 8080}, "periodSeconds": 1},
        "securityContext": {"runAsUser": 0},
    }
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    pod = {"nodeSelector": {"moyai.dev/pool": pool}, "terminationGracePeriodSeconds": 2, "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": namespace},
        "spec": {
            "serviceName": "db",
            "replicas": 1,
            "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
        },
    }


def service(namespace: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "db", "namespace": namespace},
        "spec": {"type": "LoadBalancer", "selector": {"app": "db"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }


def address(api: KubeApi, namespace: str) -> str:
    return parse_service(api.get(SERVICES, "db", namespace=namespace)).address


def until(what: str, found: Callable[[], Any], *, within: float) -> Any:
    """The first answer that is true."""
    end = time.monotonic() + within
    while not (answer := found()):
        assert time.monotonic() < end, f"not within {within:.0f} s: {what}"
        time.sleep(0.2)
    return answer


def ask(url: str, *, method: str = "GET", timeout: float = 2.0) -> str:
    """What the database answers, empty for nothing."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=timeout) as answer:
            return cast("bytes", answer.read()).decode()
    except (OSError, http.client.HTTPException):
        return ""


@dataclass
class Writer:
    """Writes ``first`` and what follows, one after the other until stopped; remembers what was acknowledged, and when."""

    url: str
    first: int = 0
    acknowledged: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        number = self.first
        while not self._stop.is_set():
            if ask(f"{self.url}/{number}", method="POST", timeout=1.0) == "stored":
                self.acknowledged.append((number, time.monotonic()))
                number += 1
            else:
                time.sleep(0.1)

    def since(self, moment: float) -> float | None:
        """When the first write after ``moment`` was acknowledged."""
        return next((at for _, at in self.acknowledged if at > moment), None)

    def stop(self) -> set[int]:
        self._stop.set()
        self._thread.join(10)
        return {number for number, _ in self.acknowledged}


def use_policy(api: KubeApi, policy: str) -> None:
    """The running cluster's fencing policy becomes another one: its controller's configuration, then the controller again."""
    before = base64.b64decode(api.get(SECRETS, CCM, namespace=CCM_NAMESPACE)["data"]["cloud.conf"]).decode()
    lines = [line for line in before.splitlines() if not line.startswith("fencing")]
    lines.insert(lines.index("[Moyai]") + 1, f"fencing = {policy}")
    api.patch(SECRETS, CCM, body={"stringData": {"cloud.conf": "\n".join(lines) + "\n"}}, namespace=CCM_NAMESPACE)
    mark = {"spec": {"template": {"metadata": {"annotations": {"test/policy": policy}}}}}
    api.patch(DEPLOYMENTS, CCM, body=mark, namespace=CCM_NAMESPACE)

    def running() -> bool:
        return parse_deployment(api.get(DEPLOYMENTS, CCM, namespace=CCM_NAMESPACE)).done

    until("the controller is there again", running, within=120)


def attached_to(api: KubeApi, volume: str) -> set[str]:
    """The nodes that have the volume."""
    there = map(parse_attachment, api.list(VOLUME_ATTACHMENTS))
    return {one.node for one in there if one.volume == volume and one.attached}

"""A namespace for tests of Services, and how its Services are used from the host.

The pods run a small server of moyai's own image: HTTP and UDP on port 8080, both answer with the pod's and the node's name.
"""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from moyai.cloud.load_balancers import LoadBalancer
from moyai.core.ids import cluster_tag
from moyai.images.references import MOYAI
from moyai.kube.objects import parse_service
from moyai.linux.process import run

if TYPE_CHECKING:
    from tests.e2e.conftest import SharedCluster

SERVER = r"""
import http.server, json, os, socketserver, threading
names = {"pod": os.environ["POD"], "node": os.environ["NODE"]}
class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        text = json.dumps({**names, "client": self.client_address[0]}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(text))); self.end_headers(); self.wfile.write(text)
    def log_message(self, *_): pass
class Udp(socketserver.BaseRequestHandler):
    def handle(self): self.request[1].sendto(json.dumps(names).encode(), self.client_address)
threading.Thread(target=socketserver.ThreadingUDPServer(("", 8080), Udp).serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer(("", 8080), Web).serve_forever()
"""


class Place:
    """A namespace with two pods, one on each worker."""

    def __init__(self, cluster: SharedCluster) -> None:
        self.cluster = cluster
        self.name = f"svc-{secrets.token_hex(3)}"

    def start(self) -> None:
        field = {"pod": "metadata.name", "node": "spec.nodeName"}
        container = {
            "name": "server",
            "image": MOYAI,
            "imagePullPolicy": "Never",
            "command": ["python3", "-c", SERVER],
            "env": [{"name": key.upper(), "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in field.items()],
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        }
        spread = {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "echo"}},
        }
        pod = {"containers": [container], "topologySpreadConstraints": [spread], "terminationGracePeriodSeconds": 0}
        self.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}},
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "echo", "namespace": self.name},
                "spec": {
                    "replicas": 2,
                    "selector": {"matchLabels": {"app": "echo"}},
                    "template": {"metadata": {"labels": {"app": "echo"}}, "spec": pod},
                },
            },
        )
        self.cluster.kubectl("-n", self.name, "rollout", "status", "deployment/echo", "--timeout=180s", timeout=200)

    def apply(self, *objects: dict[str, Any]) -> None:
        self.cluster.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(one) for one in objects))

    def service(self, name: str, *, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        plain = {
            "type": "LoadBalancer",
            "selector": {"app": "echo"},
            "ports": [{"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        }
        meta = {"name": name, "namespace": self.name, "annotations": annotations or {}}
        self.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {**plain, **spec}})

    def patch(self, name: str, body: dict[str, Any]) -> None:
        self.cluster.kubectl("-n", self.name, "patch", "service", name, "--type=merge", "-p", json.dumps(body))

    def delete(self, name: str) -> None:
        """Returns when the finalizer is off, that is, when all is gone."""
        self.cluster.kubectl("-n", self.name, "delete", "service", name, "--timeout=120s", timeout=150)

    def read(self, name: str) -> dict[str, Any]:
        return self.cluster.get("-n", self.name, "service", name)

    def address(self, name: str) -> str:
        def found() -> str:
            ingress = parse_service(self.read(name)).ingress
            return ingress[0].ip if ingress else ""

        return until(found, 120)

    def balancer(self, name: str) -> LoadBalancer:
        calls = self.cluster.cloud.load_balancers
        (found,) = calls.load_balancers(name=f"kube_service_{self.cluster.name}_{self.name}_{name}")
        return calls.get(found.id)

    def rules(self, name: str) -> set[tuple[str, int]]:
        """The ports that are open in the cluster's groups for the Service."""
        cloud, tag = self.cluster.cloud, cluster_tag(self.cluster.uid)
        groups = [one.id for one in cloud.firewall.security_groups(tag=tag)]
        return {
            (rule.protocol or "", rule.port_min or 0)
            for rule in cloud.firewall.security_group_rules(groups)
            if rule.description == f"{tag} service {self.name}/{name}"
        }

    def left(self) -> list[str]:
        """What the cloud still holds of this namespace's Services."""
        cloud, tag = self.cluster.cloud, cluster_tag(self.cluster.uid)
        groups = [one.id for one in cloud.firewall.security_groups(tag=tag)]
        return [
            *(one.name for one in cloud.load_balancers.load_balancers(tag=tag) if self.name in one.name),
            *(one.description for one in cloud.addresses.floating_ips(tag=tag) if self.name in one.description),
            *(one.description for one in cloud.firewall.security_group_rules(groups) if self.name in one.description),
        ]

    def events(self, name: str) -> list[str]:
        words = ("-n", self.name, "events", "--field-selector", f"involvedObject.name={name}")
        return [f"{one['reason']}: {one['message']}" for one in self.cluster.get(*words)["items"]]

    def annotate(self, name: str, **changes: str | None) -> None:
        """Annotations with the prefix of load balancers, underscores for dashes; None takes one away."""
        notes = {f"loadbalancer.openstack.org/{key.replace('_', '-')}": value for key, value in changes.items()}
        self.patch(name, {"metadata": {"annotations": notes}})


def until(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first answer that is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s"
        time.sleep(0.3)
    return found


def web(address: str, port: int = 80) -> dict[str, str]:
    """The server's answer by HTTP, empty for none."""
    text = run(["curl", "-s", "-m", "3", f"http://{address}:{port}/"], check=False).stdout
    return json.loads(text) if text.startswith("{") else {}


def udp(address: str, port: int) -> dict[str, str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        try:
            client.sendto(b"?", (address, port))
            return json.loads(client.recv(500))
        except OSError:
            return {}

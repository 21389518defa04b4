"""Kubernetes on these machines: the control plane, nodes, pods."""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
from pathlib import Path
from typing import cast

from moyai.linux.nspawn import Host, NspawnMachine

from .report import LAB, Json, report, trying, wait


class Api:
    """The cluster's API, with the control plane's own admin.conf. One connection: each handshake takes emulation a while."""

    def __init__(self, conf: Path) -> None:
        text = conf.read_text()
        found = dict(re.findall(r"(server|[a-z-]+-data): (\S+)", text))
        server = str(found["server"]).removeprefix("https://")
        context = ssl.create_default_context(cadata=base64.b64decode(found["certificate-authority-data"]).decode())
        pair = LAB / "admin.pem"
        pair.write_bytes(b"".join(base64.b64decode(found[f"client-{kind}-data"]) for kind in ("certificate", "key")))
        context.load_cert_chain(pair)
        self._connection = http.client.HTTPSConnection(server, timeout=60, context=context)

    def call(self, method: str, path: str, *, body: object = None, kind: str = "application/json") -> Json:
        data = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path, data, {"Content-Type": kind})
            answer = self._connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            # the next call connects again
            self._connection.close()
            raise OSError(f"{method} {path}: {error!r}") from error
        if answer.status >= 400:
            raise OSError(f"{method} {path}: {answer.status} {said[:300]!r}")
        return cast("Json", json.loads(said))

    def ask(self, path: str) -> Json:
        """The answer, empty if none came.

        The caller asks again until its own deadline, because emulated processors are slow.
        """
        try:
            return self.call("GET", path)
        except OSError:
            return {}

    def items(self, path: str) -> list[Json]:
        return cast("list[Json]", self.ask(path).get("items", []))


def ready(item: Json) -> bool:
    conditions = item.get("status", {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def check_control_plane(control: NspawnMachine) -> Api:
    conf = control.upper / "etc/kubernetes/admin.conf"

    # a first try that failed for want of time is begun again by the machine itself: only the deadline counts
    with trying("kubeadm init by user data"):
        wait("admin.conf", lambda: "" if conf.exists() else None, seconds=900)
        api = Api(conf)
        wait("the API", lambda: "" if api.items("/api/v1/namespaces") else None, seconds=900)
    return api


def check_cluster(machines: list[NspawnMachine], api: Api) -> None:
    with trying("both nodes Ready") as detail:
        names = {machine.name for machine in machines}

        def nodes_ready() -> str | None:
            nodes = api.items("/api/v1/nodes")
            for node in nodes:
                admit(api, node)
            done = {node["metadata"]["name"] for node in nodes if ready(node)}
            return "" if done == names else None

        wait("Ready nodes", nodes_ready, seconds=900, every=2)
        info = api.items("/api/v1/nodes")[0]["status"]["nodeInfo"]
        detail.append(f"{info['kubeletVersion']} {info['containerRuntimeVersion']} {info['osImage']} {info['kernelVersion']}")

    with trying("CoreDNS Running"):
        dns = "/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app%3Dkube-dns"
        wait("CoreDNS", lambda: "" if (pods := api.items(dns)) and all(map(ready, pods)) else None, seconds=900, every=2)


def admit(api: Api, node: Json) -> None:
    """What the cloud controller manager does: the node exists, so its first taint goes."""
    taints = cast("list[Json]", node["spec"].get("taints") or [])
    rest = [taint for taint in taints if taint["key"] != "node.cloudprovider.kubernetes.io/uninitialized"]
    if rest != taints:
        patch = {"spec": {"taints": rest or None}}
        api.call("PATCH", f"/api/v1/nodes/{node['metadata']['name']}", body=patch, kind="application/merge-patch+json")


#: Resolves the API's name and asks it for its health, again until ``seconds`` have passed: kube-proxy writes the addresses of a
#: Service to the kernel some time after the pods behind it are Ready, and an emulated processor may take longer for a handshake
#: than a client waits.
_LOOK = """
import http.client, socket, ssl, time, urllib.request
name, began, last = "kubernetes.default.svc.cluster.local", time.monotonic(), ""
while True:
    try:
        address = socket.getaddrinfo(name, 443)[0][4][0]
        context = ssl._create_unverified_context()
        status = urllib.request.urlopen(f"https://{name}/readyz", context=context, timeout=60).status
        break
    except (OSError, http.client.HTTPException) as error:
        last = f"after {time.monotonic() - began:.0f} s: {error!r}"
        if time.monotonic() - began > seconds:
            raise SystemExit(last)
        time.sleep(1)
open("/dev/termination-log", "w").write(f"{address} {status} {last}")
"""
_LOOK_SECONDS = 300


def check_pods(here: Host, machines: list[NspawnMachine], *, api: Api, image: str) -> None:
    pods = "/api/v1/namespaces/default/pods"
    control, worker = machines[0], machines[-1]

    def create(name: str, node: str, *, program: str, memory: str) -> None:
        container: Json = {"name": "c", "image": image, "imagePullPolicy": "Never", "command": ["python3", "-c", program]}
        container |= {"resources": {"limits": {"memory": memory}}, "terminationMessagePolicy": "FallbackToLogsOnError"}
        tolerations = [{"operator": "Exists"}]
        spec = {"nodeName": node, "restartPolicy": "Never", "containers": [container], "tolerations": tolerations}
        api.call("POST", pods, body={"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    wait(
        "the default service account",
        lambda: "" if api.items("/api/v1/namespaces/default/serviceaccounts") else None,
        seconds=120,
    )
    with trying("pods resolve names and reach a Service, on both nodes; memory of a pod ends in the pod") as detail:
        for machine in (control, worker):
            create(f"look-{machine.name}", machine.name, program=f"seconds = {_LOOK_SECONDS}{_LOOK}", memory="128Mi")
        create("greedy", worker.name, program="b=[bytearray(1<<20) for _ in range(4096)]", memory="48Mi")
        # The process ends on SIGTERM, as a server does. PID 1 without a handler would delay the end of its machine by a minute.
        create(
            "stays",
            worker.name,
            program="import signal,sys;signal.signal(15,lambda *_:sys.exit());signal.pause()",
            memory="64Mi",
        )

        def outcome(name: str) -> str | None:
            phase = api.ask(f"{pods}/{name}").get("status", {}).get("phase")
            return phase if phase in ("Succeeded", "Failed") else None

        def terminated(name: str) -> Json:
            status = api.call("GET", f"{pods}/{name}")["status"]
            return cast("Json", status["containerStatuses"][0]["state"]["terminated"])

        for machine in (control, worker):
            name = f"look-{machine.name}"
            phase = wait(name, lambda name=name: outcome(name), seconds=600, every=2)
            detail.append(f"{name}: {terminated(name).get('message', '')};")
            assert phase == "Succeeded", f"{name} {phase}"
        assert wait("greedy", lambda: outcome("greedy"), seconds=600, every=2) == "Failed"
        reason = terminated("greedy")["reason"]
        detail.append(str(reason))
        assert reason == "OOMKilled"
        assert here.leader(worker.folder, worker.name)
        wait("the pod beside it", lambda: "" if ready(api.ask(f"{pods}/stays")) else None, seconds=120, every=2)

    with trying("exec into a pod") as detail:
        words = ["kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "exec", "stays", "--"]
        words += ["python3", "-c", "print(6*7)"]
        said = here.run(control.folder, control.name, argv=words, timeout=300).stdout.strip()
        detail.append(said)
        assert said == "42"
    failed = here.run(
        worker.folder, worker.name, argv=["systemctl", "list-units", "--failed", "--no-legend", "--plain"], timeout=60
    )
    report("no unit of the machine failed", not failed.stdout.strip(), detail=failed.stdout.strip())

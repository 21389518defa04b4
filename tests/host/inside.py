"""What is tried in the virtual machine: run there by its own Python, with the standard library and moyai's own source.

    python3 inside.py outer    the host's part: settings, the cloud's scope and namespaces, and what is left afterwards
    … daemon                   in the scope: the control group root (as ``localcloud.launch`` does)
    … cloud                    PID 1 of the cloud's namespaces: bridges, machines, Kubernetes

Reads ``/share/plan.json``; writes a line to ``/share/results.jsonl`` for everything found out: what, whether, how long, detail.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from moyai.linux import cgroups, netns
from moyai.linux.machine import Host, NspawnMachine
from moyai.linux.process import run
from moyai.localcloud import inside, tuning
from moyai.localcloud.layout import LocalCloudConfig

SHARE, LAB = Path("/share"), Path("/lab")
RESULTS = SHARE / "results.jsonl"
CONFIG = LocalCloudConfig(name="try", zones=("az1",))
BRIDGE = "brnodes"
Json = dict[str, Any]


def report(what: str, ok: bool, seconds: float = 0.0, detail: str = "") -> None:
    line = {"what": what, "ok": ok, "seconds": round(seconds, 1), "detail": detail, "uptime": round(time.monotonic(), 1)}
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


@contextmanager
def trying(what: str) -> Generator[list[str]]:
    """Report what happens within; the list takes details. A failure ends the run."""
    began, detail = time.monotonic(), list[str]()
    try:
        yield detail
    except BaseException as error:
        report(what, False, time.monotonic() - began, f"{' '.join(detail)} {error!r}")
        raise
    report(what, True, time.monotonic() - began, " ".join(detail))


def wait(what: str, found: Callable[[], str | None], seconds: float, every: float = 1.0) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (value := found()) is not None:
            return value
        time.sleep(every)
    raise TimeoutError(f"not within {seconds:.0f} s: {what}")


# ---- the host's part


def outer() -> None:
    before = state()
    with trying("kernel modules and settings can be had") as detail:
        detail += tuning.tune(CONFIG.name)
        assert not detail
        assert Path("/proc/sys/net/bridge").exists(), "br_netfilter"
    with trying("the daemon's scope, and all within it"):
        words = [*cgroups.scope_prefix(CONFIG.cgroup), sys.executable, __file__, "daemon"]
        subprocess.run(words, check=True)
    with trying("the root goes") as detail:
        cgroups.find(CONFIG.cgroup).remove()
        detail += tuning.restore(CONFIG.name)
        assert not detail
    with trying("nothing is left: control groups, mounts, namespaces, links, settings") as detail:
        wait("the scope's end", lambda: "" if not cgroups.left(CONFIG.cgroup) else None, 20)
        after = state()
        detail += [f"{key}: {before[key]} became {after[key]}" for key in before if after[key] != before[key]]
        assert not detail


def state() -> dict[str, str]:
    """All that a run may not change on the host."""
    mounts = "\n".join(line for line in Path("/proc/mounts").read_text().splitlines() if "binfmt_misc" not in line)
    names = ("fs/inotify/max_user_instances", "kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "vm/panic_on_oom")
    settings = {name: (Path("/proc/sys") / name).read_text().strip() for name in names}
    groups = sorted(str(path) for path in Path("/sys/fs/cgroup").rglob("*moyai*") if path.is_dir() and "moyai-try" in path.name)
    links = sorted(name for _, name in socket.if_nameindex())
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    return {
        "mounts": mounts,
        "settings": str(settings),
        "groups": str(groups),
        "links": str(links),
        "namespaces": str(netns.names()),
        "controllers": controllers.read_text() if controllers.exists() else "v1",
        "machines": str(run(["ps", "-e", "-o", "comm"]).stdout.count("systemd-nspawn")),
    }


def daemon() -> None:
    with trying("control groups version 2, delegated by systemd") as detail:
        detail.append(cgroups.detect())
        root = cgroups.prepare(CONFIG.cgroup)
        detail.append(str(root))
    words = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", sys.executable, __file__, "cloud", str(root)]
    subprocess.run(words, check=True)


def cloud() -> None:
    """PID 1: takes in orphans, machines among them; the work is done by a child."""
    child = os.fork()
    if child == 0:
        try:
            work(sys.argv[2])
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    while True:
        pid, status = os.wait()
        if pid == child:
            sys.exit(os.waitstatus_to_exitcode(status))


# ---- the machines


def work(root: str) -> None:
    plan: Json = json.loads((SHARE / "plan.json").read_text())
    with trying("the cloud's namespace"):
        inside.prepare(CONFIG, LAB)
        lines = [f"link add {BRIDGE} type bridge", f"address add {plan['gateway']} dev {BRIDGE}", f"link set {BRIDGE} up"]
        lines += [f"route add {node['pod_cidr']} via {node['address']} dev {BRIDGE}" for node in plan["nodes"]]
        run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
    here = Host(cgroups.open_root(root))
    machines = [make(node, plan) for node in plan["nodes"]]
    threading.Thread(target=show, args=(machines,), daemon=True).start()
    try:
        with trying("machines start under their limits"):
            for machine in machines:
                here.group(machine.name).verify(here.launch(machine, timeout=120))
        check_machines(here, machines)
        with exhausting(here, machines[-1]):
            api = check_control_plane(machines[0])
        check_cluster(machines, api)
        check_pods(here, machines, api, str(plan["pod_image"]))
    except BaseException:
        for machine in machines:
            (SHARE / f"console-{machine.name}.log").write_bytes(
                machine.console.read_bytes() if machine.console.exists() else b""
            )
            journal(here, machine)
        raise
    with trying("machines stop when asked, and nothing of them is left") as detail:
        for machine in machines:
            began = time.monotonic()
            here.stop(machine.folder, machine.name, grace=60)
            detail.append(f"{machine.name} {time.monotonic() - began:.1f} s")
            netns.unplug(f"tap-{machine.name[-8:]}")
            netns.remove(machine.netns)
        assert not here.names(), here.names()
        assert "/lab/machines" not in Path("/proc/mounts").read_text()
        assert not netns.names("try-"), netns.names()
        nspawn = [pid for pid in Path("/proc").iterdir() if pid.name.isdigit() and "nspawn" in (pid / "comm").read_text()]
        assert not nspawn, nspawn


def show(machines: list[NspawnMachine]) -> None:
    """Let the host see the consoles while it goes on: when it does not end, that is all there is to see."""
    while True:
        for machine in machines:
            if machine.console.exists():
                (SHARE / f"console-{machine.name}.log").write_bytes(machine.console.read_bytes())
        time.sleep(5)


def make(node: Json, plan: Json) -> NspawnMachine:
    """The machine's folder as Nova's driver makes it: overlay, its own store, config drive, links."""
    name = str(node["name"])
    folder = LAB / "machines" / name
    seed = folder / "up/var/lib/cloud/seed/config_drive/openstack/latest"
    for path in (seed, folder / "up/etc", folder / "kubelet", folder / "store"):
        path.mkdir(parents=True)
    (folder / "up/etc/hostname").write_text(f"{name}\n")
    # nobody answers there, but CoreDNS does not start without somebody to ask
    (folder / "up/etc/resolv.conf").write_text(f"nameserver {plan['gateway'].partition('/')[0]}\n")
    meta = {"uuid": str(uuid.uuid4()), "name": name, "hostname": name, "meta": node["metadata"], "availability_zone": "az1"}
    (seed / "meta_data.json").write_text(json.dumps(meta))
    (seed / "user_data").write_text((SHARE / node["user_data"]).read_text())
    run(["cp", "-al", f"{LAB}/store/.", folder / "store"])
    for database in (LAB / "store").rglob("*.db"):
        run(["cp", "-p", "--remove-destination", database, folder / "store" / database.relative_to(LAB / "store")])
    namespace = f"try-{name}"
    netns.add(namespace)
    address = netns.LinkAddress(node["address"], int(plan["prefix"]), str(plan["gateway"]).partition("/")[0])
    tail = name[-8:]
    netns.plug(namespace, netns.Link(f"tap-{tail}", "eth0", node["mac"], 1450, (address,)))
    netns.enslave(f"tap-{tail}", BRIDGE)
    return NspawnMachine(
        name=name,
        hostname=name,
        folder=folder,
        lower=LAB / "image",
        netns=namespace,
        memory_bytes=int(node["memory_mb"]) << 20,
        cpus=int(node["cpus"]),
        binds=((folder / "store", "/var/lib/containerd"), (folder / "kubelet", "/var/lib/kubelet")),
    )


def journal(here: Host, machine: NspawnMachine) -> None:
    try:
        said = here.run(machine.folder, machine.name, argv=["journalctl", "--no-pager", "-b"], timeout=120).stdout
    except Exception as error:
        said = repr(error)
    pods = (f"{path}\n{path.read_text(errors='replace')[-4000:]}" for path in machine.upper.glob("var/log/pods/*/*/*.log"))
    (SHARE / f"journal-{machine.name}.log").write_text("\n".join([said, *pods]))


def check_machines(here: Host, machines: list[NspawnMachine]) -> None:
    machine = machines[0]
    with trying("a machine is what its flavor says") as detail:
        memory = here.run(machine.folder, machine.name, argv=["grep", "MemTotal", "/proc/meminfo"], timeout=60).stdout.split()[
            1
        ]
        detail.append(f"{memory} kB")
        assert int(memory) == machine.memory_bytes >> 10
        links = here.run(machine.folder, machine.name, argv=["ls", "/sys/class/net"], timeout=60).stdout.split()
        assert sorted(links) == ["eth0", "lo"], links
    with trying("what is run in a machine is in its group") as detail:
        detail.append(
            run(here.exec_argv(machine.folder, machine.name, argv=["cat", "/proc/self/cgroup"]), timeout=60).stdout.strip()
        )
        assert detail[-1].startswith("0::/moyai-exec"), detail


@contextmanager
def exhausting(here: Host, machine: NspawnMachine) -> Generator[None]:
    """Beside what happens within, somebody in the machine takes memory without end: only he is killed."""
    leader = here.leader(machine.folder, machine.name)
    greedy = subprocess.Popen(
        here.exec_argv(machine.folder, machine.name, argv=["tail", "/dev/zero"]), stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        with trying("memory of a machine ends in the machine") as detail:
            code = greedy.wait(300)
            usage = here.group(machine.name).usage()
            detail.append(f"exit {code}, {usage.oom_kills} killed for memory")
            assert code in (-9, 137)
            assert usage.oom_kills >= 1
            assert here.leader(machine.folder, machine.name) == leader, "the machine itself ended"


# ---- Kubernetes


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

    def call(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Json:
        data = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path, data, {"Content-Type": kind})
            answer = self._connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            # the next call connects anew
            self._connection.close()
            raise OSError(f"{method} {path}: {error!r}") from error
        if answer.status >= 400:
            raise OSError(f"{method} {path}: {answer.status} {said[:300]!r}")
        return cast("Json", json.loads(said))

    def ask(self, path: str) -> Json:
        """For who asks again: empty where no answer came. Emulated processors are slow, only the asker's deadline counts."""
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

    # a first try that failed for want of time is begun anew by the machine itself: only the deadline counts
    with trying("kubeadm init by user data"):
        wait("admin.conf", lambda: "" if conf.exists() else None, 900)
        api = Api(conf)
        wait("the API", lambda: "" if api.items("/api/v1/namespaces") else None, 900)
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

        wait("Ready nodes", nodes_ready, 900, 2)
        info = api.items("/api/v1/nodes")[0]["status"]["nodeInfo"]
        detail.append(f"{info['kubeletVersion']} {info['containerRuntimeVersion']} {info['osImage']} {info['kernelVersion']}")

    with trying("CoreDNS Running"):
        dns = "/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app%3Dkube-dns"
        wait("CoreDNS", lambda: "" if (pods := api.items(dns)) and all(map(ready, pods)) else None, 900, 2)


def admit(api: Api, node: Json) -> None:
    """What the cloud controller manager does: the node exists, so its first taint goes."""
    taints = cast("list[Json]", node["spec"].get("taints") or [])
    rest = [taint for taint in taints if taint["key"] != "node.cloudprovider.kubernetes.io/uninitialized"]
    if rest != taints:
        patch = {"spec": {"taints": rest or None}}
        api.call("PATCH", f"/api/v1/nodes/{node['metadata']['name']}", patch, "application/merge-patch+json")


def check_pods(here: Host, machines: list[NspawnMachine], api: Api, image: str) -> None:
    pods = "/api/v1/namespaces/default/pods"
    control, worker = machines[0], machines[-1]

    def create(name: str, node: str, program: str, memory: str) -> None:
        container: Json = {"name": "c", "image": image, "imagePullPolicy": "Never", "command": ["python3", "-c", program]}
        container["resources"] = {"limits": {"memory": memory}}
        tolerations = [{"operator": "Exists"}]
        spec = {"nodeName": node, "restartPolicy": "Never", "containers": [container], "tolerations": tolerations}
        api.call("POST", pods, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    look = (
        "import socket,ssl,urllib.request as u;"
        "a=socket.getaddrinfo('kubernetes.default.svc.cluster.local',443)[0][4][0];"
        "c=ssl._create_unverified_context();"
        "print(a,u.urlopen('https://kubernetes.default.svc.cluster.local/version',context=c,timeout=20).status)"
    )
    wait("the default service account", lambda: "" if api.items("/api/v1/namespaces/default/serviceaccounts") else None, 120)
    with trying("pods resolve names and reach a Service, on both nodes; memory of a pod ends in the pod") as detail:
        for machine in (control, worker):
            create(f"look-{machine.name}", machine.name, look, "128Mi")
        create("greedy", worker.name, "b=[bytearray(1<<20) for _ in range(4096)]", "48Mi")
        # as a server does it ends when it is told to: PID 1 without a handler would keep its machine from stopping for a minute
        create("stays", worker.name, "import signal,sys;signal.signal(15,lambda *_:sys.exit());signal.pause()", "64Mi")

        def outcome(name: str) -> str | None:
            phase = api.ask(f"{pods}/{name}").get("status", {}).get("phase")
            return phase if phase in ("Succeeded", "Failed") else None

        for machine in (control, worker):
            name = f"look-{machine.name}"
            phase = wait(name, lambda name=name: outcome(name), 600, 2)
            assert phase == "Succeeded", f"{name} {phase}"
        assert wait("greedy", lambda: outcome("greedy"), 600, 2) == "Failed"
        state = api.call("GET", f"{pods}/greedy")["status"]["containerStatuses"][0]["state"]
        detail.append(str(state["terminated"]["reason"]))
        assert state["terminated"]["reason"] == "OOMKilled"
        assert here.leader(worker.folder, worker.name)
        wait("the pod beside it", lambda: "" if ready(api.ask(f"{pods}/stays")) else None, 120, 2)

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


if __name__ == "__main__":
    {"outer": outer, "daemon": daemon, "cloud": cloud}[sys.argv[1]]()

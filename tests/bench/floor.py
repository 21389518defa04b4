"""The floor under ``moyai up``: the same machines and the same kubeadm, on this host, without any cloud.

Three machines of the node image, under the limits of the flavors that a spec without fields asks for, on one bridge, with the
very user data that ``moyai up`` gives them (without add-ons: there is no cloud that they could manage). What the cloud
controller manager would have to do for CoreDNS, taking a taint off, is done by the watcher at once. Everything is in
namespaces of its own; afterwards nothing is left.

``measure`` is the host's part; ``python -m tests.bench.floor daemon|inner FOLDER`` the parts below it, as in the local cloud.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from moyai.bootstrap import pki
from moyai.core.clock import SystemClock
from moyai.core.paths import Paths
from moyai.linux import cgroups, netns
from moyai.linux.nspawn import Host, NspawnMachine
from moyai.linux.process import run
from moyai.localcloud import inside, tuning
from moyai.localcloud.layout import FLAVORS, LocalCloudConfig
from moyai.plan.nodes import wanted_nodes
from moyai.spec.load import dump, validate
from moyai.spec.model import Cluster
from tests.bare_machines import MTU, BareCluster
from tests.bench import observe

#: Ranges are those of the benchmarks' cloud: the two never run at the same time.
CONFIG = LocalCloudConfig("bench-floor", "10.252.0.0/24", "10.251.0.0/24", zones=("az1", "az2"))
RUN = "machines run"
_BRIDGE = "brnodes"
_STORE = "var/lib/containerd"
_SECONDS = 600


class FloorError(Exception):
    """The floor could not be measured; the message says why."""


def unpack(paths: Paths, image: Path) -> Path:
    """The node image as a hypervisor keeps it: ``root`` and ``store`` beside each other. Not part of what is measured."""
    folder = paths.state / CONFIG.cgroup
    shutil.rmtree(folder, ignore_errors=True)
    root, store = folder / "image" / "root", folder / "image" / "store"
    root.mkdir(parents=True)
    root.chmod(0o755)
    run(["tar", "--zstd", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xp", "-C", root, "-f", image], timeout=600)
    (root / _STORE).rename(store)
    (root / _STORE).mkdir(mode=0o755)
    (root / "etc/machine-id").write_text("")
    return folder


def measure(folder: Path, cluster: Cluster) -> dict[str, float]:
    """Phase → seconds since the machines' making began. Raises FloorError."""
    (folder / "cluster.json").write_text(json.dumps(dump(cluster)))
    for name in ("result.json", "failure"):
        (folder / name).unlink(missing_ok=True)
    tuning.tune(CONFIG.name)
    try:
        words = [*cgroups.scope_prefix(CONFIG.cgroup), sys.executable, "-m", "tests.bench.floor", "daemon", str(folder)]
        with (folder / "log").open("ab") as log:
            subprocess.run(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, timeout=_SECONDS + 120)
    finally:
        cgroups.find(CONFIG.cgroup).remove()
        tuning.restore(CONFIG.name)
        shutil.rmtree(folder / "machines", ignore_errors=True)
    try:
        found: dict[str, float] = json.loads((folder / "result.json").read_text())
    except FileNotFoundError:
        said = (folder / "log").read_text(errors="replace").strip().splitlines()
        raise FloorError(said[-1] if said else "the floor's machines do not run") from None
    return found


def remove(folder: Path) -> None:
    """The unpacked image and all else that was made in the folder."""
    shutil.rmtree(folder, ignore_errors=True)


def daemon(folder: Path) -> None:
    """In the scope: the control group root; then PID 1 of the namespaces."""
    root = cgroups.prepare(CONFIG.cgroup)
    words = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "tests.bench.floor"]
    subprocess.run([*words, "inner", str(folder), str(root)], check=True, timeout=_SECONDS + 60)


def inner(folder: Path, root: str) -> None:
    """PID 1: takes in orphans, machines among them; the work is done by a child. Its end is the end of all."""
    child = os.fork()
    if child == 0:
        try:
            _work(folder, root)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    while True:
        pid, status = os.wait()
        if pid == child:
            sys.exit(os.waitstatus_to_exitcode(status))


def _work(folder: Path, root: str) -> None:
    cluster = validate(json.loads((folder / "cluster.json").read_text()), source="tests/bench")
    zones = [hypervisor.zone for hypervisor in CONFIG.hypervisors]
    nodes = wanted_nodes(cluster, zones=zones, allocations={})
    network = cluster.spec.network.node_cidr
    gateway = str(network[1])
    inside.prepare(CONFIG, folder)
    lines = [f"link add {_BRIDGE} type bridge forward_delay 0", f"address add {gateway}/{network.prefixlen} dev {_BRIDGE}"]
    lines += [f"link set {_BRIDGE} up"]
    lines += [f"route add {node.pod_cidr} via {node.address} dev {_BRIDGE}" for node in nodes]
    run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
    keys = pki.ensure(folder / "pki", SystemClock())
    kubeconfig = folder / "kubeconfig"
    server = f"https://{nodes[0].address}:6443"
    kubeconfig.write_text(pki.admin_kubeconfig(keys, name=cluster.name, server=server, clock=SystemClock()))
    told_by = BareCluster(cluster, nodes, keys)
    here = Host(cgroups.open_root(root))

    def start(number: int) -> NspawnMachine:
        node = nodes[number]
        pools = {pool.name: pool.flavor for pool in cluster.spec.node_pools}
        flavor = pools[node.pool] if node.role == "worker" else cluster.spec.control_plane.flavor
        cpus, memory_mb = next((cpus, memory) for name, cpus, memory, _ in FLAVORS if name == flavor)
        machine = _machine(folder, node.name, cpus=cpus, memory_mb=memory_mb)
        seed = "var/lib/cloud/seed/config_drive/openstack/latest"
        data: dict[str, Any] = {"uuid": str(uuid.uuid4()), "name": node.name, "hostname": node.name}
        data["meta"] = told_by.metadata(node)
        machine.put("etc/hostname", f"{node.name}\n")
        machine.put("etc/resolv.conf", f"nameserver {gateway}\n")
        machine.put(f"{seed}/meta_data.json", json.dumps(data), mode=0o600)
        machine.put(f"{seed}/user_data", told_by.user_data(node), mode=0o600)
        netns.add(machine.netns)
        address = netns.LinkAddress(node.address, network.prefixlen, gateway)
        mac = f"fa:16:3e:00:00:{number + 1:02x}"
        netns.plug(machine.netns, netns.Link(f"tap{number}", "eth0", mac, MTU, (address,)))
        netns.enslave(f"tap{number}", _BRIDGE)
        here.launch(machine, timeout=120)
        return machine

    with observe.Watcher(kubeconfig, len(nodes), hook=observe.admit) as watcher, ThreadPoolExecutor(len(nodes)) as pool:
        began = time.time()
        machines = list(pool.map(start, range(len(nodes))))
        running = time.time()
        if not watcher.done.wait(_SECONDS):
            missing = f"only {', '.join(watcher.marks) or 'nothing'} was reached"
            raise FloorError(f"not up after {_SECONDS} s: {missing}")
    journals = {
        machine.name: observe.journal(
            here.run(machine.folder, machine.name, argv=["sh", "-c", observe.JOURNAL], timeout=60).stdout
        )
        for machine in machines
    }
    moments = {RUN: running, **observe.machine_phases(journals, machines[0].name), **watcher.marks}
    for machine in machines:
        here.clear(machine.folder, machine.name)
    (folder / "result.json").write_text(json.dumps({phase: moment - began for phase, moment in moments.items()}))


def _machine(folder: Path, name: str, *, cpus: int, memory_mb: int) -> NspawnMachine:
    """The machine's folder as Nova's driver makes it: an overlay on the shared root, a store of its own by hard links."""
    own = folder / "machines" / name
    for part in ("store", "kubelet"):
        (own / part).mkdir(parents=True)
        (own / part).chmod(0o755)
    store = folder / "image" / "store"
    run(["cp", "-al", f"{store}/.", own / "store"])
    for database in store.rglob("*.db"):
        run(["cp", "-p", "--remove-destination", database, own / "store" / database.relative_to(store)])
    return NspawnMachine(
        name=name,
        hostname=name,
        folder=own,
        lower=folder / "image" / "root",
        netns=f"floor-{name}",
        memory_bytes=memory_mb << 20,
        cpus=cpus,
        binds=((own / "store", f"/{_STORE}"), (own / "kubelet", "/var/lib/kubelet")),
    )


if __name__ == "__main__":
    if sys.argv[1] == "daemon":
        daemon(Path(sys.argv[2]))
    else:
        inner(Path(sys.argv[2]), sys.argv[3])

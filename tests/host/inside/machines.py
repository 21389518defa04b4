"""Machines as the local cloud makes them: folders, links, limits, and that they keep within these."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager

from moyai.linux import netns
from moyai.linux.nspawn import Host, NspawnMachine
from moyai.linux.process import run

from .report import LAB, SHARE, Json, trying

BRIDGE = "brnodes"


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
        told = here.run(machine.folder, machine.name, argv=["grep", "MemTotal", "/proc/meminfo"], timeout=60)
        memory = told.stdout.split()[1]
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

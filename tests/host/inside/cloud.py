"""PID 1 of the cloud's namespaces, and the order in which things are tried there."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from moyai.linux import cgroups, netns
from moyai.linux.nspawn import Host
from moyai.linux.process import run
from moyai.localcloud import inside

from .kubernetes import check_cluster, check_control_plane, check_pods
from .machines import BRIDGE, check_machines, exhausting, journal, make, show
from .report import CONFIG, LAB, SHARE, Json, trying


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
        check_pods(here, machines, api=api, image=str(plan["pod_image"]))
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

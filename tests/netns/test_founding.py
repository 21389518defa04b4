"""The script that makes a control plane, beside real etcds: which machine begins a cluster, and which one only ever joins.

kubeadm, kubectl and curl are programs that note what they are asked for: what they do is not the matter here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence

from moyai.bootstrap import user_data
from tests.netns.lb_world import until
from tests.netns.test_etcd_member import ADDRESSES, PROGRAM, Machine, Make, etcd, first, make, members
from tests.netns.test_restore_etcd import PORT, keys, machine_pki, put, without_certificate

__all__ = ["etcd", "make"]

#: kubeadm's phase after which a machine's etcd runs.
ETCD = "init phase etcd local"


class Script:
    """The script on a machine. ``asked``: what it wants of kubeadm, in order. ``keep``: names of the nodes that live, for a
    machine that waits for etcd's data from a backup."""

    def __init__(self, machine: Machine, *, founder: bool, keep: Sequence[str] | None = None) -> None:
        self._machine, tools = machine, machine.root / "tools"
        self._log = machine.root / "asked"
        tools.mkdir(exist_ok=True)
        for name in ("kubeadm", "kubectl", "curl"):
            (tools / name).write_text(f'#!/bin/bash\n[ {name} != kubeadm ] || echo "$*" >> {self._log}\n')
            (tools / name).chmod(0o755)
        (machine.root / "var/lib/moyai").mkdir(parents=True, exist_ok=True)
        text = user_data._data(  # pyright: ignore[reportPrivateUsage]
            "make-control-plane", ADDRESS=machine.address, FOUNDER="yes" if founder else "no", INIT="kubeadm init"
        ).decode()
        places = {
            "/usr/local/lib/moyai/etcd-member": str(PROGRAM),
            "/usr/local/lib/moyai/restore-etcd": str(PROGRAM.with_name("restore_etcd.py")),
            "/usr/local/lib/moyai/patiently": str(PROGRAM.with_name("patiently")),
            **{f"/{one}/moyai": f"{machine.root}/{one}/moyai" for one in ("etc", "var/lib")},
            "/var/lib/etcd": f"{machine.root}/var/lib/etcd",
        }
        for there, here in places.items():
            text = text.replace(there, here)
        (machine.root / "make-control-plane").write_text(text)
        if keep is not None:
            (machine.root / "etc/moyai/restore.json").write_text(json.dumps({"keep": list(keep)}))
        environment = {
            "MOYAI_ROOT": str(machine.root),
            "MOYAI_ETCD_SCHEME": "http",
            "MOYAI_PORT": str(PORT),
            "MOYAI_ETCD": f"http://{machine.address}:2379",
            "PATH": f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        script = ["bash", str(machine.root / "make-control-plane")]
        # a group of its own: the script waits in programs that it has started
        self._process = subprocess.Popen(script, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)

    @property
    def asked(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> str:
        said, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, said
        return said

    def end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


def test_a_first_machine_that_is_made_again_waits_for_others_that_do_not_answer(make: Make) -> None:
    """They reboot, and their network is late: to the machine this looks as if there had never been a cluster."""
    zero, one, two = first(make), make(1), make(2)
    one.joined()
    two.joined()
    # A member that forgets with its death that the third one votes waits for the first one's vote. It has on disk what was
    # agreed upon before the last write that it has: raft's state is written down together with the next entry.
    for _ in range(2):
        put(zero.address, "after all have joined")
    for address in ADDRESSES:
        until("all know all", lambda one=address: set(members(one).values()) == {"voter"}, within=20)
    for machine in (zero, one, two):
        machine.die()
    blank = make(0)
    blank.run("found", expect=1)
    script = Script(blank, founder=False)
    try:
        until("its certificates", lambda: len(script.asked) == 2, within=20)
        time.sleep(3)
        assert [words for words in script.asked if words == "init" or ETCD in words] == []
        one.start()
        two.start()
        until("its etcd is asked for", lambda: any(ETCD in words for words in script.asked), within=60)
    finally:
        script.end()
    assert "value: existing" in (blank.root / "etc/moyai/own.yaml").read_text()
    assert members(ADDRESSES[1]) == {"plane-1": "voter", "plane-2": "voter", "": "learner"}


def test_the_machine_that_the_plan_has_chosen_begins_the_cluster(make: Make) -> None:
    chosen = make(0)
    script = Script(chosen, founder=True)
    script.wait()
    assert script.asked == ["init"]


def test_the_chosen_machine_joins_where_there_is_an_etcd_all_the_same(make: Make) -> None:
    first(make)
    script = Script(make(1), founder=True)
    try:
        until("its etcd is asked for", lambda: any(ETCD in words for words in script.asked), within=60)
    finally:
        script.end()
    assert "init" not in script.asked


def test_a_founder_that_was_interrupted_goes_on_with_what_its_etcd_has(make: Make) -> None:
    """Others have joined it by then: a cluster from nothing would be a second one."""
    zero, one = first(make), make(1)
    one.joined()
    (zero.root / "var/lib/moyai").mkdir(parents=True)
    (zero.root / "var/lib/moyai/founded").touch()
    script = Script(zero, founder=True)
    assert "going on with the cluster" in script.wait()
    assert "init" not in script.asked
    phases = [words.removeprefix("init phase ").partition(" --config")[0] for words in script.asked]
    assert phases[-3:] == ["upload-config all", "bootstrap-token", "addon kube-proxy"]
    assert "etcd local" in phases
    assert members() == {"plane-0": "voter", "plane-1": "voter"}


def test_a_founder_without_data_begins_again(make: Make) -> None:
    machine = make(0)
    marker = machine.root / "var/lib/moyai/founded"
    marker.parent.mkdir(parents=True)
    marker.touch()
    script = Script(machine, founder=True)
    script.wait()
    assert script.asked == ["init"]


def test_a_restored_founder_forgets_machines_that_are_gone_before_an_api_server_may_run(make: Make) -> None:
    machine = first(make)
    for node in ("gone", "lives"):
        put(machine.address, f"/registry/minions/{node}")
    (machine.root / "var/lib/moyai").mkdir(parents=True)
    (machine.root / "var/lib/moyai/founded").touch()
    script = Script(machine, founder=True, keep=["lives"])
    said = script.wait()
    assert "forgot the machines that are gone: gone" in said
    assert keys(machine.address) == ["/registry/minions/lives"]
    phases = [words.removeprefix("init phase ").partition(" --config")[0] for words in script.asked]
    order = [phases.index(one) for one in ("etcd local", "kubelet-start", "control-plane all", "upload-config all")]
    assert order == sorted(order)
    assert "init" not in phases


def test_a_restored_founder_without_data_waits_for_them(make: Make) -> None:
    machine = make(0)
    machine_pki(machine.root / "etc/kubernetes/pki")
    script = Script(machine, founder=True, keep=[])
    try:
        until(
            "its certificates",
            lambda: script.asked == ["init phase certs all --config " + f"{machine.root}/etc/moyai/kubeadm.yaml"],
            within=20,
        )
        until("it listens", lambda: without_certificate("GET", "/readyz") == 200, within=20)
        time.sleep(1)
        assert len(script.asked) == 1
        assert script.runs
    finally:
        script.end()

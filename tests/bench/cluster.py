"""The cluster of the benchmarks by the very commands a user types: ``moyai up``, again, and ``moyai down``.

Phases begin when the command is started. What happens in the cluster is seen by ``observe``; what the command does, by the
events that it prints; what happens in the machines, by their journals.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from moyai.core.paths import Paths
from moyai.lifecycle.record import Record
from moyai.lifecycle.ssh import ssh_command
from moyai.linux.process import ProcessError, run
from moyai.plan.steps import API, MACHINES
from moyai.spec.load import validate
from moyai.spec.model import Cluster
from tests.bench import cloud, observe
from tests.bench.floor import RUN

#: What a spec without fields asks for: one control plane and two workers in two zones.
SPEC: dict[str, Any] = {
    "apiVersion": "moyai.dev/v1alpha1",
    "kind": "Cluster",
    "metadata": {"name": "bench"},
    "spec": {"cloud": cloud.CONFIG.name},
}
#: The services of a cloud load much of their code at their first requests: the first `up` pays for that.
COLD = "CoreDNS runs, the first cluster of a cloud just started"
FIRST_CALL, COMMAND, AGAIN, DOWN = "first API call", "command done", "up again, nothing to do", "down, a load balancer in use"
_LOOK = "look at the cloud"
_MOYAI = Path(sys.executable).with_name("moyai")


class CommandFailed(Exception):
    """A command of ours ended with a failure; the message has its last words."""


@dataclass
class Command:
    """One run of the command line: how long, what it printed, when each of its steps began and ended (in seconds)."""

    began: float
    seconds: float
    output: dict[str, Any]
    steps: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])


def cluster() -> Cluster:
    return validate(SPEC, source="tests/bench")


def nodes() -> int:
    spec = cluster().spec
    return 1 + sum(pool.replicas for pool in spec.node_pools)


def command(*words: str) -> Command:
    """Run ``moyai … --output json`` to its end. Raises CommandFailed."""
    began = time.time()
    steps: dict[str, tuple[float, float]] = {}
    said: list[str] = []

    def listen(stream: Any) -> None:
        for line in stream:
            try:
                event = cast("dict[str, Any]", json.loads(line))
            except ValueError:
                said.append(line)
                continue
            now = time.time() - began
            if event["kind"] == "started":
                steps[event["step"]] = (now, now)
            elif event["kind"] in ("finished", "failed") and event["step"] in steps:
                steps[event["step"]] = (steps[event["step"]][0], now)
                if event["kind"] == "failed":
                    said.append(f"{event['step']}: {event['detail']}")

    with subprocess.Popen(
        [str(_MOYAI), *words, "--output", "json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        listener = threading.Thread(target=listen, args=(process.stderr,), daemon=True)
        listener.start()
        assert process.stdout is not None
        text = process.stdout.read()
        code = process.wait()
        seconds = time.time() - began
        listener.join(5)
    if code:
        raise CommandFailed(f"moyai {' '.join(words)} ended with {code}: {' '.join(said[-3:]).strip()}")
    return Command(began, seconds, json.loads(text), steps)


class BenchCluster:
    def __init__(self, paths: Paths, folder: Path) -> None:
        """``folder``: for the spec's file."""
        self.paths = paths
        self._spec = folder / "cluster.yaml"
        self._spec.write_text(json.dumps(SPEC))

    @property
    def record(self) -> Record | None:
        return Record.open(self.paths, SPEC["metadata"]["name"])

    @property
    def kubeconfig(self) -> Path:
        return self.paths.clusters / str(SPEC["metadata"]["name"]) / "kubeconfig"

    def up(self) -> tuple[dict[str, float], Command]:
        """Build it; phase → seconds since the command was started, in the order of time."""
        with observe.Watcher(self.kubeconfig, nodes()) as watcher:
            done = command("up", str(self._spec))
            if not watcher.done.wait(10):
                raise CommandFailed(f"`moyai up` is done but not the cluster: only {', '.join(watcher.marks)}")
        moments = {**observe.machine_phases(self._journals(done.output["nodes"]), done.output["nodes"][0]), **watcher.marks}
        phases = {name: moment - done.began for name, moment in moments.items()}
        phases |= {FIRST_CALL: done.steps[_LOOK][0], RUN: done.steps[MACHINES.name][1], COMMAND: done.seconds}
        phases[f"{API.name} to the command"] = done.steps[API.name][1]
        return dict(sorted(phases.items(), key=lambda item: item[1])), done

    def again(self) -> float:
        """`up` of a cluster that is as it should be; seconds."""
        done = command("up", str(self._spec))
        if done.output["changed"]:
            raise CommandFailed("a second `moyai up` changed something")
        return done.seconds

    def down(self) -> Command:
        done = command("down", str(SPEC["metadata"]["name"]), "--yes")
        if done.output["left"]:
            raise CommandFailed(f"`moyai down` left {done.output['left']} objects")
        return done

    def remove(self) -> None:
        """The existing objects of the cluster."""
        if self.record is not None:
            try:
                self.down()
            except CommandFailed:
                # its cloud goes as well: a record without a cloud would only be in the way
                shutil.rmtree(self.kubeconfig.parent, ignore_errors=True)

    def _journals(self, names: list[str]) -> dict[str, dict[str, float]]:
        record = self.record
        assert record is not None
        found: dict[str, dict[str, float]] = {}
        for name in names:
            words = ssh_command(record, name, words=["sudo", "sh", "-c", f"'{observe.JOURNAL}'"])
            try:
                found[name] = observe.journal(run(words, timeout=60).stdout)
            except ProcessError:
                found[name] = {}  # the figures from inside the machines are then missing, nothing else
        return found

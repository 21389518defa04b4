"""What a control plane does on its own machine when it leaves: which processes it ends, and which files it renames."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import moyai.bootstrap

PROGRAM = Path(moyai.bootstrap.__file__).with_name("data") / "leave_control_planes.py"


def run(what: str, **environment: Path | str) -> None:
    given = {**os.environ, **{name: str(value) for name, value in environment.items()}}
    subprocess.run([sys.executable, "-c", PROGRAM.read_text(), what], env=given, check=True)


def test_the_servers_manifests_are_set_aside_and_etcds_stays(tmp_path: Path) -> None:
    names = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    for name in names:
        (tmp_path / f"{name}.yaml").write_text(name)
    for _ in range(2):  # a second time there is nothing to do
        run("servers", MOYAI_MANIFESTS=tmp_path)
    found = {one.name: one.read_text() for one in tmp_path.iterdir()}
    assert found == {"etcd.yaml": "etcd", **{f".{name}.yaml": name for name in names[1:]}}


def test_the_address_goes_by_keepaliveds_own_goodbye(tmp_path: Path) -> None:
    """The parent is asked to end, which ends its child: a child alone would be started again at once."""
    with subprocess.Popen(["sleep", "60"]) as parent, subprocess.Popen(["sleep", "60"]) as child:
        found = ((parent.pid, "keepalived", 1), (child.pid, "keepalived", parent.pid), (99999992, "a) (b", 1))
        for number, name, above in found:
            (tmp_path / str(number)).mkdir()
            (tmp_path / str(number) / "stat").write_text(f"{number} ({name}) S {above} 1 1 0 -1")
        (tmp_path / "99999993").mkdir()
        run("address", MOYAI_PROC=tmp_path)
        assert parent.wait() == -signal.SIGTERM
        assert child.poll() is None
        child.kill()


def test_no_keepalived_is_nothing_to_do(tmp_path: Path) -> None:
    run("address", MOYAI_PROC=tmp_path)

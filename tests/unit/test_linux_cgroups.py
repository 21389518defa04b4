"""Control groups on a made-up tree: what is written where, and what is refused. (The real kernel: tests/netns.)"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from moyai.linux import cgroups
from moyai.linux.cgroups.v1 import NEEDED, RootV1
from moyai.linux.cgroups.v2 import RootV2


@pytest.fixture
def v1(tmp_path: Path) -> Path:
    for name in (*NEEDED, "unified"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").write_text("1\n")
    for file in ("cpuset.cpus", "cpuset.mems"):
        (tmp_path / "cpuset" / file).write_text("0-1\n" if file.endswith("cpus") else "0\n")
    return tmp_path


@pytest.fixture
def v2(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    return tmp_path


def test_version_is_told_by_what_is_there(v1: Path) -> None:
    assert cgroups.detect(v1) == "v1"
    (v1 / "cgroup.controllers").write_text("cpu\n")
    assert cgroups.detect(v1) == "v2"


def test_no_cgroups_at_all_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(cgroups.CgroupError, match="no control groups at"):
        cgroups.detect(tmp_path)


def test_v1_root_has_cpus_and_memory_nodes_for_its_children(v1: Path) -> None:
    root = cgroups.prepare("moyai-test", v1)
    assert str(root) == "moyai-test"
    assert (v1 / "cpuset/moyai-test/cpuset.cpus").read_text() == "0-1"
    assert (v1 / "cpuset/moyai-test/cgroup.clone_children").read_text() == "1"
    assert str(cgroups.open_root("moyai-test", v1)) == "moyai-test"


def test_v1_limits(v1: Path) -> None:
    cgroups.prepare("moyai-test", v1).create("m1", memory_bytes=512 << 20, cpus=1.5)
    assert (v1 / "memory/moyai-test/m1/memory.limit_in_bytes").read_text() == str(512 << 20)
    # a machine weighs as its processors do, all together more than one of the cloud's services
    assert (v1 / "cpu/moyai-test/m1/cpu.shares").read_text() == "1536"
    assert (v1 / "cpu/moyai-test/cpu.shares").read_text() == "8192"


def test_v1_never_sets_a_quota_since_no_container_could_have_a_larger_one(v1: Path) -> None:
    root = cgroups.prepare("moyai-test", v1)
    for number, cpus in enumerate((0.5, 1, 2, 4, None)):
        root.create(f"m{number}", cpus=cpus)
    assert len(root.names()) == 5
    assert list(v1.glob("**/cpu.cfs_quota_us")) == []


@pytest.mark.parametrize(
    ("available", "wanted", "given"),
    [
        ("0-3", [1, 1, 1, 1, 1], ["0", "1", "2", "3", "0"]),
        ("0-3", [2, 1, 1, 2], ["0,1", "2", "3", "0,1"]),
        # the host is the limit: nothing to restrict, and no weight for the choice of others
        ("0-1", [2, 4, 1, 1], [None, None, "0", "1"]),
        ("2,5-7", [1.5, 1], ["2,5", "6"]),
    ],
)
def test_v1_machines_with_fewer_cpus_than_the_host_are_spread_over_them(
    v1: Path, available: str, wanted: list[float], given: list[str | None]
) -> None:
    (v1 / "cpuset/cpuset.cpus").write_text(f"{available}\n")
    root = cgroups.prepare("moyai-test", v1)
    for number, cpus in enumerate(wanted):
        root.create(f"m{number}", cpus=cpus)
    files = [v1 / f"cpuset/moyai-test/m{number}/cpuset.cpus" for number in range(len(wanted))]
    assert [file.read_text() if file.exists() else None for file in files] == given


def test_v1_names_the_controllers_that_are_missing(v1: Path) -> None:
    (v1 / "pids" / "cgroup.procs").unlink()
    with pytest.raises(cgroups.CgroupError, match=r"missing.*: pids"):
        RootV1(v1, "x")


def test_v2_limits_and_no_swap(v2: Path) -> None:
    root = RootV2(v2, "system.slice/moyai.scope")
    group = root.group("m1")
    (v2 / "system.slice/moyai.scope/m1").mkdir(parents=True)
    (v2 / "system.slice/moyai.scope/m1/memory.swap.max").write_text("max")
    group.limit(memory_bytes=1 << 30, cpus=2)
    folder = v2 / "system.slice/moyai.scope/m1"
    assert (folder / "memory.max").read_text() == str(1 << 30)
    assert (folder / "cpu.max").read_text() == "200000 100000"
    assert (folder / "memory.swap.max").read_text() == "0"


def test_v2_exec_has_a_leaf_of_its_own(v2: Path) -> None:
    root = RootV2(v2, "moyai")
    argv = root.group("m1").joining(["true"], for_exec=True)
    assert str(v2 / "moyai/m1/payload/moyai-exec/cgroup.procs") in argv
    assert (v2 / "moyai/m1/payload/moyai-exec").is_dir()


def test_v2_machine_without_its_controllers_is_found_out(v2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = RootV2(v2, "moyai").group("m1")
    paths = {"": "/system.slice/other.scope/payload"}

    def pid_paths(pid: int) -> dict[str, str]:
        return paths

    monkeypatch.setattr(group, "pid_paths", pid_paths)
    payload = v2 / "moyai/m1/payload"
    payload.mkdir(parents=True)
    (payload / "cgroup.controllers").write_text("cpu memory\n")
    with pytest.raises(cgroups.CgroupError, match=r"is in /system\.slice/other"):
        group.verify(7)
    paths[""] = "/moyai/m1/payload"
    with pytest.raises(cgroups.CgroupError, match="cpuset, pids did not reach the machine"):
        group.verify(7)
    (payload / "cgroup.controllers").write_text("cpu cpuset memory pids io\n")
    group.verify(7)


def test_v2_scope_that_systemd_removes_first(v2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = RootV2(v2, "system.slice/moyai.scope")
    (root.folder / "daemon").mkdir(parents=True)

    def vanishes(path: Path, value: str) -> None:
        shutil.rmtree(root.folder)
        raise cgroups.CgroupError(f"{path}: cannot write {value!r}: No such device")

    monkeypatch.setattr("moyai.linux.cgroups.v2.write", vanishes)
    root.remove()
    assert not root.exists()


def test_v2_group_that_cannot_be_killed_is_told(v2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = RootV2(v2, "system.slice/moyai.scope")
    (root.folder / "daemon").mkdir(parents=True)

    def refuses(path: Path, value: str) -> None:
        raise cgroups.CgroupError(f"{path}: cannot write {value!r}: Permission denied")

    monkeypatch.setattr("moyai.linux.cgroups.v2.write", refuses)
    with pytest.raises(cgroups.CgroupError, match=r"cgroup\.kill.*Permission denied"):
        root.remove()


@pytest.mark.parametrize("name", ["", "daemon", "..", "a/b"])
def test_names_that_would_leave_the_root(v1: Path, name: str) -> None:
    with pytest.raises(cgroups.CgroupError, match="no name for a cgroup"):
        cgroups.prepare("moyai-test", v1).create(name)


@pytest.mark.parametrize("text", ["", "/etc", "../x", "a/../../b"])
def test_roots_that_would_leave_the_tree(v1: Path, text: str) -> None:
    with pytest.raises(cgroups.CgroupError, match="no name of a cgroup root"):
        cgroups.open_root(text, v1)


def test_a_root_that_is_gone(v1: Path) -> None:
    with pytest.raises(cgroups.CgroupError, match="does not exist"):
        cgroups.open_root("moyai-gone", v1)


def test_joining_writes_every_controller_and_becomes_the_program(v1: Path) -> None:
    group = cgroups.prepare("moyai-test", v1).create("m1")
    done = subprocess.run(group.joining(["echo", "a b", "$HOME"]), capture_output=True, text=True, check=True)
    assert done.stdout == "a b $HOME\n"
    assert all((v1 / name / "moyai-test/m1/cgroup.procs").read_text() == "0\n" for name in NEEDED)


def test_a_join_that_fails_ends_the_launch(v1: Path) -> None:
    group = cgroups.prepare("moyai-test", v1).create("m1")
    argv = group.joining(["echo", "unlimited"])
    (v1 / "memory/moyai-test/m1/cgroup.procs").mkdir()
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 97
    assert "unlimited" not in done.stdout

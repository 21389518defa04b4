"""Machines on the real kernel, without OpenStack: start, limits, hardware, disks, stop, and that nothing is left.

The machine's root is an overlay on the host's own root, cut down to systemd's basic target: no image is needed. Needs root.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from moyai.linux import cgroups, loop, netns
from moyai.linux.nspawn import REBOOT, GuestDisk, Host, MachineError, NspawnMachine, trim_console
from moyai.linux.process import ProcessError, run

ROOT_NAME = "moyai-test-machine"
MEMORY = 192 << 20


@pytest.fixture
def host() -> Iterator[Host]:
    # Where PID 1 is systemd the daemon stands in a scope of its own; a test has no daemon: it makes a scope around a sleep.
    prefix = cgroups.scope_prefix(ROOT_NAME)
    keeper = subprocess.Popen([*prefix, "sleep", "300"]) if prefix else None
    while prefix and not cgroups.scope_path(ROOT_NAME).exists():
        time.sleep(0.05)
    if prefix:
        (cgroups.scope_path(ROOT_NAME) / "daemon").mkdir(exist_ok=True)
        root = cgroups.open_root(str(cgroups.scope_path(ROOT_NAME).relative_to(cgroups.MOUNT)))
        root.prepare(enter=False)
    else:
        root = cgroups.prepare(ROOT_NAME)
    yield Host(root)
    root.remove()
    if keeper:
        keeper.wait(10)


@pytest.fixture
def machine(tmp_path: Path, host: Host) -> Iterator[NspawnMachine]:
    folder = tmp_path / "m1"
    units = folder / "up/etc/systemd/system"
    units.mkdir(parents=True)
    (units / "default.target").symlink_to("/lib/systemd/system/sysinit.target")
    (folder / "up/etc/hostname").write_text("host-m1\n")
    (folder / "up/etc/fstab").write_text("")
    (folder / "data").mkdir()
    netns.add("moyai-test-m1")
    machine = NspawnMachine(
        name="m1",
        hostname="host-m1",
        folder=folder,
        lower=Path("/"),
        netns="moyai-test-m1",
        memory_bytes=MEMORY,
        cpus=1,
        binds=((folder / "data", "/srv"),),
    )
    yield machine
    host.remove(folder, "m1")
    netns.remove("moyai-test-m1")


def sh(host: Host, machine: NspawnMachine, *, command: str) -> str:
    return host.run(machine.folder, machine.name, argv=["/bin/sh", "-c", command]).stdout.strip()


def booted(host: Host, machine: NspawnMachine) -> None:
    """Launch it and wait until its systemd takes orders."""
    host.launch(machine)
    sh(host, machine, command="for i in $(seq 200); do [ -S /run/systemd/private ] && exit 0; sleep 0.05; done; exit 1")


def wait_end(host: Host, machine: NspawnMachine, *, seconds: float = 20) -> int | None:
    deadline = time.monotonic() + seconds
    while host.supervisor(machine.folder, machine.name) and time.monotonic() < deadline:
        time.sleep(0.05)
    return host.last_exit(machine.folder)


def test_a_machine_is_what_its_flavor_says(host: Host, machine: NspawnMachine) -> None:
    leader = host.launch(machine)
    assert sh(host, machine, command="cat /proc/1/comm") == "systemd"
    assert sh(host, machine, command="grep MemTotal /proc/meminfo").split()[1] == str(MEMORY >> 10)
    assert (
        sh(host, machine, command="grep -c ^processor /proc/cpuinfo; ls -d /sys/devices/system/cpu/cpu[0-9]* | wc -l") == "1\n1"
    )
    assert sh(host, machine, command="ls /sys/class/net") == "lo"
    host.group("m1").verify(leader)
    (machine.folder / "data/seen").touch()
    assert sh(host, machine, command="ls /srv") == "seen"


def test_everybody_in_the_machine_can_read_whatever_the_daemons_umask(
    host: Host, machine: NspawnMachine, tmp_path: Path
) -> None:
    other = replace(machine, folder=tmp_path / "m2")  # a folder that nothing was put into yet
    units = "etc/systemd/system/default.target"
    before = os.umask(0o077)
    try:
        other.put("etc/hostname", "host-m1\n")
        other.put("etc/new/deep/file", "readable\n")
        other.inside(units).symlink_to("/lib/systemd/system/sysinit.target")
        host.launch(replace(other, binds=()))
    finally:
        os.umask(before)
    as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    try:
        assert sh(host, other, command=f"{as_nobody} cat /etc/new/deep/file") == "readable"
        assert sh(host, other, command=f"{as_nobody} head -1 /proc/meminfo").startswith("MemTotal")
        assert sh(host, other, command="stat -c %a / /etc /usr").split() == ["755", "755", "755"]
    finally:
        host.remove(other.folder, "m1")


def test_a_container_with_a_limit_above_its_machines_cpus_starts_and_stays_below_the_machines(
    host: Host, machine: NspawnMachine
) -> None:
    booted(host, machine)
    # as a kubelet and runc do it: a group for the container, below the machine's own
    version = cgroups.detect()
    mounted = "/sys/fs/cgroup/cpu" if version == "v1" else "/sys/fs/cgroup"
    limit = "echo 400000 >$g/cpu.cfs_quota_us" if version == "v1" else "echo 400000 100000 >$g/cpu.max"
    remount = f"mount -o remount,bind,rw $(realpath {mounted})"
    sh(host, machine, command=f"{remount} 2>/dev/null; g={mounted}/container; mkdir $g && {limit}")
    before = host.group("m1").usage().cpu_seconds
    sh(host, machine, command="for i in 1 2 3; do timeout 2 sh -c 'while :; do :; done' & done; wait")
    used = host.group("m1").usage().cpu_seconds - before
    assert used < 2 * machine.cpus * 1.15, "three busy processes for two seconds"


@pytest.mark.parametrize(
    "change",
    [
        # each is the host's, not the machine's; the value is the present one, should it be written after all
        "cat /proc/sys/kernel/core_pattern | tee /proc/sys/kernel/core_pattern",
        "cat /proc/sys/vm/swappiness | tee /proc/sys/vm/swappiness",
        "cat /sys/kernel/mm/transparent_hugepage/enabled >/sys/kernel/profiling",
        "echo h >/proc/sysrq-trigger",
        "date --set=@$(date +%s)",
        "head -c 1 /proc/kcore",
    ],
)
def test_the_host_cannot_be_changed_in_passing(host: Host, machine: NspawnMachine, change: str) -> None:
    booted(host, machine)
    with pytest.raises(ProcessError):
        sh(host, machine, command=f"set -o pipefail 2>/dev/null; {change}")


def test_what_is_the_machines_own_can_be_changed(host: Host, machine: NspawnMachine) -> None:
    booted(host, machine)
    for change in (
        "echo 1 >/proc/sys/net/ipv4/ip_forward",
        "echo 1 >/proc/sys/net/ipv4/conf/all/forwarding",
        # as machine-prep covers a value that a kubelet writes
        "cp /proc/sys/vm/overcommit_memory /run/own && mount --bind /run/own /proc/sys/vm/overcommit_memory"
        " && echo 1 >/proc/sys/vm/overcommit_memory",
        # as containerd makes a pod's view of the kernel
        "unshare --pid --mount --uts --ipc --fork sh -c 'mount -t proc proc /mnt && echo 5 >/mnt/sys/kernel/shmmni'",
        "mount -t sysfs sysfs /mnt && umount /mnt",
        "mount --make-rshared /",
        "hostname other",
    ):
        sh(host, machine, command=change)
    assert Path("/proc/sys/vm/overcommit_memory").read_text() != "9"


def test_memory_ends_inside_only(host: Host, machine: NspawnMachine) -> None:
    leader = host.launch(machine)
    with pytest.raises(ProcessError, match="137"):
        sh(host, machine, command="tail /dev/zero")
    assert host.leader(machine.folder, "m1") == leader
    usage = host.group("m1").usage()
    assert usage.oom_kills >= 1
    assert 0 < usage.memory_bytes <= MEMORY


def test_a_disk_comes_grows_and_goes(host: Host, machine: NspawnMachine, tmp_path: Path) -> None:
    host.launch(machine)
    file = tmp_path / "disk"
    file.touch()
    os.truncate(file, 32 << 20)
    disk = GuestDisk("vdb", "0123456789abcdef0123456789", loop.attach(file))
    try:
        host.plug(machine.folder, "m1", disk=disk)
        name = "/dev/disk/by-id/virtio-0123456789abcdef0123"
        place = "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:1:0"
        sh(host, machine, command=f"mkfs.ext4 -q {name} && mount {name} /mnt && echo kept >/mnt/file && umount /mnt")
        os.truncate(file, 64 << 20)
        loop.refresh(disk.device)
        assert sh(host, machine, command=f"blockdev --getsize64 {name}") == str(64 << 20)
        assert sh(host, machine, command=f"blockdev --getsize64 {place}") == str(64 << 20)
        host.unplug(machine.folder, "m1", disk=disk)
        assert sh(host, machine, command=f"ls {name} {place} /dev/vdb 2>/dev/null; true") == ""
        host.stop(machine.folder, "m1", grace=10)
        host.launch(machine, [disk])
        assert sh(host, machine, command=f"mount {name} /mnt && cat /mnt/file && umount /mnt") == "kept"
    finally:
        loop.detach(file)
    assert loop.find(file) == []


def test_a_loop_device_that_a_killed_machine_made_of_its_disk_does_not_keep_the_disk(
    host: Host, machine: NspawnMachine, tmp_path: Path
) -> None:
    file = tmp_path / "disk"
    file.touch()
    os.truncate(file, 32 << 20)
    disk = GuestDisk("vdb", "0123456789abcdef0123456789", loop.attach(file))
    try:
        host.launch(machine, [disk])
        # as a kubelet does it: the disk under another name, kept open by a loop device, which is found again by that name
        sh(host, machine, command="touch /mnt/raw && mount --bind /dev/vdb /mnt/raw && losetup -f /mnt/raw")
        assert "/mnt/raw" in sh(host, machine, command="cat /sys/block/loop*/loop/backing_file")
        assert len(loop.upon([disk.device])) == 1
        host.stop(machine.folder, "m1", grace=0)
        assert loop.detach(file, timeout=10)
        assert loop.upon([disk.device]) == []
    finally:
        loop.detach(file)


def test_stop_leaves_nothing_and_data_stay(host: Host, machine: NspawnMachine) -> None:
    host.launch(machine)
    sh(host, machine, command="echo 1 >/root/kept")
    host.stop(machine.folder, "m1", grace=10)
    assert host.leader(machine.folder, "m1") is None
    assert not host.group("m1").exists()
    assert not os.path.ismount(machine.root)
    assert not Path("/run/systemd/nspawn/propagate/m1").exists()
    host.launch(machine)
    assert sh(host, machine, command="cat /root/kept") == "1"


def test_ends_by_itself(host: Host, machine: NspawnMachine) -> None:
    booted(host, machine)
    sh(host, machine, command="systemctl --no-block --force reboot")
    assert wait_end(host, machine) == REBOOT
    booted(host, machine)
    sh(host, machine, command="systemctl --no-block --force poweroff")
    assert wait_end(host, machine) == 0
    booted(host, machine)
    pid = host.supervisor(machine.folder, "m1")
    assert pid
    os.kill(pid, 9)
    assert wait_end(host, machine) == 137
    assert host.leader(machine.folder, "m1") is None


def test_freeze_and_kill_while_frozen(host: Host, machine: NspawnMachine) -> None:
    host.launch(machine)
    group = host.group("m1")
    group.set_frozen(True)
    assert group.frozen()
    host.stop(machine.folder, "m1", grace=5)
    assert not group.exists()


def test_a_machine_that_cannot_start_says_why_and_leaves_nothing(host: Host, machine: NspawnMachine, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = replace(machine, lower=empty)
    (machine.upper / "etc").rename(tmp_path / "etc")
    with pytest.raises(MachineError, match=r"does not start.*(os-release|init)"):
        host.launch(broken)
    assert not host.group("m1").exists()
    assert not os.path.ismount(machine.root)


def test_launching_twice_is_refused(host: Host, machine: NspawnMachine) -> None:
    leader = host.launch(machine)
    with pytest.raises(MachineError, match="runs already"):
        host.launch(machine)
    assert host.leader(machine.folder, "m1") == leader


def test_machine_outlives_its_launcher(host: Host, machine: NspawnMachine) -> None:
    child = os.fork()
    if child == 0:
        try:
            host.launch(machine)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert host.leader(machine.folder, "m1")


def test_console_is_kept_and_bounded(host: Host, machine: NspawnMachine) -> None:
    host.launch(machine)
    deadline = time.monotonic() + 20
    while b"systemd" not in machine.console.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert b"systemd" in machine.console.read_bytes()
    run(["truncate", "--size=5M", machine.console])
    trim_console(machine.console)
    assert machine.console.stat().st_size == 1 << 20
    sh(host, machine, command="echo still-written >/dev/console")
    deadline = time.monotonic() + 10
    while b"still-written" not in machine.console.read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert b"still-written" in machine.console.read_bytes()

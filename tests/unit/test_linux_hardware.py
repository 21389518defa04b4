"""The memory and CPUs that a machine reports."""

from __future__ import annotations

from pathlib import Path

from moyai.linux import hardware

HOST = "processor\t: 0\nmodel name\t: A\ncore id\t\t: 0\n\nprocessor\t: 1\nmodel name\t: B\ncore id\t\t: 1\n\n"


def test_memory_is_the_flavors() -> None:
    lines = dict(line.split(":") for line in hardware.meminfo(512 << 20).splitlines())
    assert lines["MemTotal"].split() == ["524288", "kB"]
    assert lines["SwapTotal"].split() == ["0", "kB"]


def test_fewer_and_more_processors_than_the_host() -> None:
    one = hardware.cpuinfo(HOST, [0])
    assert one.count("processor") == 1
    four = hardware.cpuinfo(HOST, range(4)).split("\n\n")
    assert [section.splitlines()[0] for section in four if section] == [f"processor\t: {number}" for number in range(4)]
    assert "model name\t: B" in four[3]


def test_the_tree_that_kubelet_reads(tmp_path: Path) -> None:
    hardware.write(tmp_path / "hw", memory_bytes=1 << 30, cpus=range(3))
    assert (tmp_path / "hw/cpu/online").read_text() == "0-2\n"
    cores = [(tmp_path / f"hw/node/node0/cpu{cpu}").readlink() for cpu in range(3)]
    assert len({str(core) for core in cores}) == 3
    assert (tmp_path / "hw/cpu/cpu2/topology/core_id").read_text() == "2\n"
    hardware.write(tmp_path / "hw", memory_bytes=1 << 30, cpus=range(1))  # a smaller flavor leaves nothing of the larger one
    assert not (tmp_path / "hw/cpu/cpu2").exists()


def test_a_machine_that_is_restricted_to_some_cpus_shows_these_by_their_numbers(tmp_path: Path) -> None:
    """The kubelet gives its pods' groups the CPUs that it reads: others are refused by the kernel."""
    hardware.write(tmp_path / "one", memory_bytes=1 << 30, cpus=[1])
    assert (tmp_path / "one/cpu/online").read_text() == "1\n"
    assert (tmp_path / "one/node/node0/cpulist").read_text() == "1\n"
    assert (tmp_path / "one/cpu/cpu1/topology/core_id").exists()
    assert not (tmp_path / "one/cpu/cpu0").exists()
    hardware.write(tmp_path / "some", memory_bytes=1 << 30, cpus=[0, 2, 3])
    assert (tmp_path / "some/cpu/online").read_text() == "0,2,3\n"
    assert hardware.cpuinfo(HOST, [1]).startswith("processor\t: 1")

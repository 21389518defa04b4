"""The hardware that a machine reports: its flavor's memory and CPUs, not the host's.

Limits are enforced by control groups; but kubelet, and people, read ``/proc/meminfo``, ``/proc/cpuinfo`` and
``/sys/devices/system``. These files and folders are written below the machine's root and bound over the real ones.
"""

from __future__ import annotations

import shutil
from pathlib import Path

# Where the files lie inside a machine, and what they stand for.
INSIDE = "/usr/lib/moyai/hardware"
TARGETS = {
    "meminfo": "/proc/meminfo",
    "cpuinfo": "/proc/cpuinfo",
    "cpu": "/sys/devices/system/cpu",
    "node": "/sys/devices/system/node",
}


def meminfo(memory_bytes: int) -> str:
    """``/proc/meminfo`` of a machine with that much memory and no swap."""
    kib = memory_bytes // 1024
    fields = {"MemTotal": kib, "MemFree": kib // 2, "MemAvailable": kib * 3 // 4, "Buffers": 0, "Cached": kib // 4}
    fields |= {"SwapCached": 0, "SwapTotal": 0, "SwapFree": 0, "Shmem": 0, "Slab": 0, "SReclaimable": 0, "SUnreclaim": 0}
    lines = [f"{name + ':':<16}{value:>8} kB\n" for name, value in fields.items()]
    return "".join(lines) + "HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n"


def cpuinfo(host: str, cpus: int) -> str:
    """``/proc/cpuinfo`` with ``cpus`` processors of the host's kind; ``host`` is the host's own text."""
    sections = [section for section in host.strip().split("\n\n") if section.startswith("processor")]
    if not sections:
        return host
    result: list[str] = []
    for number in range(cpus):
        lines = sections[number % len(sections)].splitlines()
        numbered = {"processor": number, "core id": number, "apicid": number, "initial apicid": number, "physical id": 0}
        numbered |= {"siblings": cpus, "cpu cores": cpus}
        kept = [(line.split(":", 1)[0], line) for line in lines]
        result.append("\n".join(f"{key}: {numbered[key.strip()]}" if key.strip() in numbered else line for key, line in kept))
    return "\n\n".join(result) + "\n\n"


def write(folder: Path, *, memory_bytes: int, cpus: int) -> None:
    """Write the whole tree into ``folder`` (what ``INSIDE`` will be), replacing what has that name.

    Raises OSError when the older tree does not go: the guest could have made links in it.
    """
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)
    folder.mkdir(parents=True)
    files = {
        "meminfo": meminfo(memory_bytes),
        "cpuinfo": cpuinfo(Path("/proc/cpuinfo").read_text(), cpus),
        "node/online": "0\n",
        "node/possible": "0\n",
        "node/has_cpu": "0\n",
        "node/has_memory": "0\n",
        "node/node0/cpulist": f"{_span(cpus)}\n",
        "node/node0/distance": "10\n",
        "node/node0/meminfo": "".join(f"Node 0 {line}\n" for line in meminfo(memory_bytes).splitlines()),
        "cpu/offline": "\n",
        "cpu/kernel_max": "8191\n",
    }
    files |= {f"cpu/{name}": f"{_span(cpus)}\n" for name in ("online", "possible", "present")}
    for cpu in range(cpus):
        files |= {
            f"cpu/cpu{cpu}/online": "1\n",
            f"cpu/cpu{cpu}/topology/core_id": f"{cpu}\n",
            f"cpu/cpu{cpu}/topology/physical_package_id": "0\n",
            f"cpu/cpu{cpu}/topology/die_id": "0\n",
            f"cpu/cpu{cpu}/topology/core_siblings_list": f"{_span(cpus)}\n",
            f"cpu/cpu{cpu}/topology/thread_siblings_list": f"{cpu}\n",
        }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for made in (folder, *folder.rglob("*")):  # whatever the daemon's umask: everybody in the machine reads these
        made.chmod(0o755 if made.is_dir() else 0o444)
    for cpu in range(cpus):
        (folder / f"node/node0/cpu{cpu}").symlink_to(f"../../cpu/cpu{cpu}")


def _span(cpus: int) -> str:
    return f"0-{cpus - 1}" if cpus > 1 else "0"

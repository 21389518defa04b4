# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
# (pyright takes this folder for OpenStack's package of the same name)
"""What this host has for machines, as Nova's resource tracker and as Placement count it.

Runs inside nova-compute.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import nova.conf
import nova.virt.node
from nova.objects import fields

from moyai.localcloud.drivers.nova.machines import MachineRecord

CONF = nova.conf.CONF


def available(records: Iterable[MachineRecord], nodename: str) -> dict:
    """The host's CPUs, memory and disk, and what the machines of ``records`` have of them."""
    records = list(records)
    disk = shutil.disk_usage(CONF.moyai.machines_dir)
    return {
        "vcpus": os.cpu_count() or 1,
        "memory_mb": _memory_mb(),
        "local_gb": disk.total >> 30,
        "vcpus_used": sum(record.vcpus for record in records),
        "memory_mb_used": sum(record.memory_mb for record in records),
        "local_gb_used": disk.used >> 30,
        "disk_available_least": disk.free >> 30,
        "hypervisor_type": "lxc",
        "hypervisor_version": 1,
        "hypervisor_hostname": nodename,
        "uuid": nova.virt.node.get_local_node_uuid(),
        "cpu_info": json.dumps({"arch": platform.machine()}),
        "supported_instances": [(platform.machine(), fields.HVType.LXC, fields.VMMode.EXE)],
        "numa_topology": None,
    }


def inventory(ratios: Mapping[str, float], reserved: Mapping[str, int]) -> dict:
    """Placement's inventory; ``reserved``: what else than CPUs and memory is kept for the host."""
    totals = {"VCPU": os.cpu_count() or 1, "MEMORY_MB": _memory_mb()}
    totals["DISK_GB"] = shutil.disk_usage(CONF.moyai.machines_dir).total >> 30
    kept = {"VCPU": CONF.reserved_host_cpus, "MEMORY_MB": CONF.reserved_host_memory_mb, **reserved}
    found = {}
    for name, total in totals.items():
        # A machine may have more CPUs than the host (they are shares of it), never more memory.
        most = total if name == "MEMORY_MB" else int(total * ratios[name])
        found[name] = {
            "total": total,
            "min_unit": 1,
            "max_unit": max(1, most),
            "step_size": 1,
            "allocation_ratio": ratios[name],
            "reserved": kept[name],
        }
    return found


def _memory_mb() -> int:
    return int(Path("/proc/meminfo").read_text().split()[1]) >> 10

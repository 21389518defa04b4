"""The guest's task: two machines, with the user data that ``moyai up`` gives to a control plane and to a worker."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import moyai
from moyai.bootstrap import pki
from moyai.core.clock import SystemClock
from moyai.images import references
from moyai.plan.nodes import wanted_nodes
from moyai.spec.load import validate
from tests.bare_machines import BareCluster

# Each change of process empties what the emulator knows of addresses, and its processors are a twentieth as fast: longer turns.
_RUN = """cd /share
sched=/sys/kernel/debug/sched
test -d $sched || mount -t debugfs debugfs /sys/kernel/debug
for set in latency_ns=120000000 min_granularity_ns=20000000 wakeup_granularity_ns=24000000 base_slice_ns=24000000; do
  test ! -e $sched/${set%=*} || echo ${set#*=} >$sched/${set%=*}
done
PYTHONPATH=/share:/share/src PYTHONDONTWRITEBYTECODE=1 python3 -m inside outer >out.log 2>&1
echo $? >status
"""
#: Of moyai's source, what runs on a host below the cloud's services.
_PARTS = ("__init__.py", "core", "linux", "localcloud")


def write(share: Path) -> None:
    """Fill the shared folder: source, programs, user data."""
    source = Path(moyai.__file__).parent
    for part in _PARTS:
        target = share / "src/moyai" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source / part, target)
    shutil.copytree(Path(__file__).with_name("inside"), share / "inside", ignore=shutil.ignore_patterns("__pycache__"))
    (share / "run").write_text(_RUN)
    (share / "plan.json").write_text(json.dumps(_nodes(share), indent=1))


def _nodes(share: Path) -> dict[str, Any]:
    cluster = validate(
        {
            "apiVersion": "moyai.dev/v1alpha1",
            "kind": "Cluster",
            "metadata": {"name": "try"},
            "spec": {"nodePools": [{"name": "w", "replicas": 1}]},
        },
        source="tests/host",
    )
    keys = pki.ensure(share / "pki", SystemClock())
    nodes = wanted_nodes(cluster, zones=["az1"], allocations={})
    told_by = BareCluster(cluster, nodes, keys)
    network = cluster.spec.network.node_cidr
    told: list[dict[str, Any]] = []
    for number, node in enumerate(nodes):
        first = node.role == "control-plane"
        (share / f"user-data-{number}").write_text(told_by.user_data(node))
        told.append(
            {
                "name": node.name,
                "address": node.address,
                "pod_cidr": node.pod_cidr,
                "mac": f"fa:16:3e:00:00:{number + 1:02x}",
                "memory_mb": 2560 if first else 768,
                "cpus": 2,
                "metadata": {"moyai.role": node.role, **told_by.metadata(node)},
                "user_data": f"user-data-{number}",
            }
        )
    return {
        "nodes": told,
        "gateway": f"{network[1]}/{network.prefixlen}",
        "prefix": network.prefixlen,
        "pod_image": references.MOYAI,
    }

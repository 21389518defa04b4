"""A cluster's machines as Ansible's inventory, by the convention for scripts ("Developing dynamic inventory").

It is read from the record alone: the cloud is asked nothing. Groups have the names that Kubespray gives them, and Ansible's
rule for names: letters, digits and underscores.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from typing import Any

from moyai.lifecycle.record import Record
from moyai.lifecycle.ssh import named_node, ssh_way
from moyai.plan.nodes import CONTROL_PLANE_POOL, pool_of_node

CONTROL_PLANES, WORKERS, CLUSTER = "kube_control_plane", "kube_node", "k8s_cluster"


def inventory(record: Record) -> dict[str, Any]:
    """What ``--list`` prints: groups by role, pool and zone, and the variables of all hosts; no hosts before the API has an
    address."""
    hosts = {name: host_variables(record, name) for name in sorted(record.allocations)} if record.api_address else {}
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name, found in hosts.items():
        groups[CONTROL_PLANES if found["moyai_role"] == "control-plane" else WORKERS].append(name)
        if found["moyai_role"] != "control-plane":
            groups[_group("pool", found["moyai_pool"])].append(name)
        if found["moyai_zone"]:
            groups[_group("zone", found["moyai_zone"])].append(name)
    members = {name: {"hosts": listed} for name, listed in sorted(groups.items())}
    return {
        "_meta": {"hostvars": hosts},
        "all": {"children": [CLUSTER]},
        CLUSTER: {"children": sorted(groups), "vars": {"moyai_cluster": record.cluster.name, "moyai_cloud": record.cloud}},
        **members,
    }


def host_variables(record: Record, node: str) -> dict[str, Any]:
    """What ``--host`` prints. Raises UsageError for a machine that the cluster does not have."""
    name = named_node(record, node)
    way = ssh_way(record, name)
    pool = pool_of_node(name, record.cluster.name) or ""
    return {
        "ansible_host": way.address,
        "ansible_user": way.user,
        "ansible_ssh_common_args": shlex.join(way.options),
        "moyai_role": "control-plane" if pool == CONTROL_PLANE_POOL else "worker",
        "moyai_pool": pool,
        "moyai_zone": record.allocations[name].zone,
    }


def _group(kind: str, name: str) -> str:
    return f"{kind}_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"

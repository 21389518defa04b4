"""What the daemon reports to Octavia's database, computed from the load balancer's tree. Pure.

A report maps Octavia's collections (``members``, ``pools`` ...) to objects with the statuses that change.
"""

from __future__ import annotations

from moyai.localcloud.drivers.octavia.balancer_tree import ACTIVE, DELETED, ERROR, PENDING_DELETE, LoadBalancer, things
from moyai.localcloud.drivers.octavia.operating_status import Statuses

Report = dict[str, list[dict[str, str]]]


def applied(balancer: LoadBalancer, statuses: Statuses) -> Report:
    """The data plane is as the tree wants it: what was pending is active or deleted, operating statuses are as found."""
    report: Report = {}
    for kind, thing in things(balancer):
        one = {"id": thing.id}
        if thing.status == PENDING_DELETE:
            one["provisioning_status"] = DELETED
        else:
            if not thing.settled:
                one["provisioning_status"] = ACTIVE
            if statuses[kind][thing.id] != thing.operating:
                one["operating_status"] = statuses[kind][thing.id]
        if len(one) > 1:
            report.setdefault(kind, []).append(one)
    return report


def failed(balancer: LoadBalancer) -> Report:
    """The data plane cannot be made so. What waits for its deletion goes on waiting: the next success deletes it."""
    report: Report = {}
    for kind, thing in things(balancer):
        if thing.status.startswith("PENDING_") and thing.status != PENDING_DELETE:
            report.setdefault(kind, []).append({"id": thing.id, "provisioning_status": ERROR})
    return report


def changes(shown: Statuses, found: Statuses) -> Report:
    """The operating statuses that differ from those reported last."""
    report: Report = {}
    for kind, by_id in found.items():
        for thing_id, status in by_id.items():
            if shown.get(kind, {}).get(thing_id) != status:
                report.setdefault(kind, []).append({"id": thing_id, "operating_status": status})
    return report

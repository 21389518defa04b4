"""A cluster that is made again from a backup: its etcd's data, and what the cloud has that the backup does not know.

Always holds: nothing that exists is deleted because the backup does not know it.
"""

from __future__ import annotations

from collections.abc import Iterator

from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation


def plan_restore(now: Situation, *, reachable: tuple[s.StepId, ...]) -> Iterator[s.Step]:
    """``reachable``: what must be done before the founder can be reached at the API's address. The data are sent until the API
    has answered once: a run that was ended may have made the machine and sent nothing."""
    if now.recorded.restores and now.makes_cluster:
        founder = next(node for node in now.control_planes if node.name == now.founder)
        key = keys.server(founder.name)
        begins = (s.created(key), s.StepId(s.Verb.START, key), s.StepId(s.Verb.RESUME, key), s.StepId(s.Verb.RESTART, key))
        yield s.SendEtcdData(key=key, after=(*begins, *reachable), node=founder.name, address=founder.address)


def spared_notes(now: Situation) -> Iterator[str]:
    for name in now.spared:
        yield f"node {name} is in the cloud, and the backup does not know it: it stays, and the next `moyai up` would remove it"

"""Security groups of control planes and of workers, with the rules that the spec asks for."""

from __future__ import annotations

from collections.abc import Iterator

from moyai.core.ids import Role
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.network import MachineNetwork
from moyai.plan.cluster.situation import Situation
from moyai.plan.cluster.waits import once_machines_boot
from moyai.plan.existing import GROUPS, ROLES
from moyai.plan.pod_network import PodNetwork
from moyai.plan.rules import missing_rules, wanted_rules


def plan_firewall(now: Situation, pods: PodNetwork, *, network: MachineNetwork) -> Iterator[s.Step]:
    ids: dict[Role, str] = {role: group.id for role, group in now.existing.groups.items()}
    roles = GROUPS if now.spec.machines else ROLES
    for role in roles:
        if role not in ids:
            key = keys.security_group(role)
            yield s.CreateGroup(key=key, role=role, name=keys.object_name(now.cluster.name, key))
    planes = tuple(node.address for node in now.control_planes) if network.public_cards else None
    add, remove = missing_rules(wanted_rules(now.spec, bare=pods.bare, planes=planes), now.observed.rules, groups=ids)
    for role in roles:
        # a step a group: clouds take rules of one group at a time
        mine = tuple(item for item in add if item.role == role)
        stale = tuple(rule.id for rule in remove if rule.group_id == ids.get(role))
        if mine or stale:
            groups: list[Role] = sorted({role, *(item.remote_role for item in mine if item.remote_role)})
            after = (*(s.created(keys.security_group(group)) for group in groups), *once_machines_boot(now))
            yield s.SetRules(key=keys.rules(role), after=after, role=role, add=mine, remove=stale)

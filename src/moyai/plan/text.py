"""Plans as people and programs read them: a line a step, or plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from moyai.plan.graph import Plan
from moyai.plan.nodes import PlannedNode
from moyai.plan.steps import Step, StepId
from moyai.spec.beside import NODES

#: Keys of a node in the data, where they are not the names of its fields.
_NODE_KEYS = {"ordinal": "number", "index": "slot"}


def lines(plan: Plan) -> list[str]:
    """Changes of the spec; machines that are replaced; one line a step, each with what it waits for; what is kept; notes."""
    text = [f"change {change.text}" for change in plan.changes]
    text += [f"{'replace' if one.now else 'then replace'} {one.node}: {one.why}" for one in plan.replacements]
    if not plan.steps:
        text.append("nothing to do")
    else:
        width = len(str(len(plan.steps)))
        numbers = {step.id: number for number, step in enumerate(plan.steps, 1)}
        text += [f"{numbers[step.id]:>{width}}  {step.text}{_after(step, numbers)}" for step in plan.steps]
    text += [f"keep {kept.kind} {kept.name}: {kept.why}" for kept in plan.kept]
    return text + [f"note: {note}" for note in plan.notes]


def _after(step: Step, numbers: dict[StepId, int]) -> str:
    before = sorted(numbers[one] for one in step.after)
    return f"  (after {', '.join(map(str, before))})" if before else ""


def data(plan: Plan) -> dict[str, Any]:
    """The plan as JSON-able data: the graph that runs, waits included."""
    return {
        "changes": [asdict(change) for change in plan.changes],
        "replacements": [asdict(one) for one in plan.replacements],
        "steps": [
            {
                "key": str(step.id),
                "verb": str(step.verb),
                "kind": str(step.key.kind),
                "name": step.key.name,
                "does": step.text,
                "after": [str(one) for one in step.after],
            }
            for step in plan.steps
        ],
        "nodes": [_node(node) for node in plan.nodes],
        "kept": [asdict(kept) for kept in plan.kept],
        "notes": list(plan.notes),
    }


def _node(node: PlannedNode) -> dict[str, Any]:
    fields = asdict(node)
    for name in ("virtual", "in_turns", "announced"):
        if not fields[name]:
            del fields[name]
    for name in ("given", "guessed"):
        if not fields[name]:
            del fields[name]
    if node.network == NODES:
        del fields["network"]
    return {_NODE_KEYS.get(name, name): value for name, value in fields.items()}

"""Plans as people and programs read them: a line a step, or plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from moyai.plan.steps import Plan, Step


def lines(plan: Plan) -> list[str]:
    """One line a step, each with what it waits for; then what is kept, then the notes."""
    if not plan.steps:
        text = ["nothing to do"]
    else:
        width = len(str(len(plan.steps)))
        numbers = {step.key: number for number, step in enumerate(plan.steps, 1)}
        text = [f"{numbers[step.key]:>{width}}  {step.text}{_after(step, numbers)}" for step in plan.steps]
    text += [f"keep {kept.kind} {kept.name}: {kept.why}" for kept in plan.kept]
    return text + [f"note: {note}" for note in plan.notes]


def _after(step: Step, numbers: dict[str, int]) -> str:
    before = sorted(numbers[key] for key in step.after)
    return f"  (after {', '.join(map(str, before))})" if before else ""


def data(plan: Plan) -> dict[str, Any]:
    """The plan as JSON-able data."""
    return {
        "steps": [{"key": step.key, "does": step.text, "after": list(step.after)} for step in plan.steps],
        "nodes": [asdict(node) for node in plan.nodes],
        "kept": [asdict(kept) for kept in plan.kept],
        "notes": list(plan.notes),
    }

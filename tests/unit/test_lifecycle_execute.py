"""How a plan runs: by the identities of its steps."""

from __future__ import annotations

from moyai.core.keys import Key, Kind
from moyai.core.progress import Progress, Reporter
from moyai.lifecycle.execute import carry_out
from moyai.plan import steps as s
from moyai.plan.graph import Plan, ordered


def test_two_steps_that_read_the_same_both_run() -> None:
    first = s.Delete(key=Key(Kind.VOLUME, "data (id-2)"), object_id="id-1")
    second = s.Delete(key=Key(Kind.VOLUME, "data"), detail="(id-2)", object_id="id-2", after=(first.id,))
    assert (str(first.id), first.id != second.id) == (str(second.id), True)
    done: list[str] = []

    def delete(step: s.Step, _: Progress) -> None:
        assert isinstance(step, s.Delete)
        done.append(step.object_id)

    for suffix in ("", " (again, 1)"):
        done.clear()
        carry_out(Plan(ordered([second, first])), {s.Delete: delete}, reporter=Reporter(), suffix=suffix)
        assert done == ["id-1", "id-2"]

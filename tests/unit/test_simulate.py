"""Calls for one node or one Service do not grow with their number: the smaller sizes of ``make simulate``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulate.figures import Phase, Run, growing
from tests.simulate.run import simulate

pytestmark = pytest.mark.exhaustive


def test_calls_for_one_node_or_service_do_not_grow_with_their_number(tmp_path: Path) -> None:
    runs = [simulate(number, number, folder=tmp_path / str(number)) for number in (10, 50)]
    assert [phase.name for phase in runs[0].phases][:3] == ["up", "up again", "nodes join"]
    assert [str(one) for one in growing(runs)] == []


def test_what_grows_is_named() -> None:
    def run(number: int, calls: int) -> Run:
        phase = Phase("Services come", "Service", number, 0.0, {"addresses.floating_ips": calls}, {}, {"get services": number})
        return Run(number, number, 0.0, (phase,))

    (found,) = growing([run(10, 10), run(50, 500)])
    assert str(found) == (
        "Services come of 50: calls to the cloud per Service grow from 1.0 to 10.0 (addresses.floating_ips +9.0)"
    )

"""What was measured last (``measured.json``), and the page of the documentation that it becomes. Pure but for the files.

``python -m tests.peers.page`` writes the page; a unit test holds both together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tests.peers import expectations
from tests.peers.controllers import MOYAI, PEER
from tests.peers.expectations import Expected

MEASURED = Path(__file__).with_name("measured.json")
PAGE = Path(__file__).parents[2] / "docs/reference/peers.md"
#: The most that is wanted of several Services at once: times the other controller's figure.
GOAL = 0.3
_PHASES = (("addresses", "address known"), ("answers", "first answer"), ("gone", "deleted, gone from the cloud"))

_HEAD = """# Comparison with other projects

`make peers` compares moyai with openstack-cloud-controller-manager, and runs gophercloud's acceptance tests against the
local cloud. [Run the long tests](../how-to/long-tests.md) has the commands.
"""

_RACE = """
## Services of type LoadBalancer

Both controllers run on the same cluster (one control plane, two workers), one at a time, each in a pod on the control
plane without leader election. For each number of Services, both take their turn right after each other.

| phase | definition |
| --- | --- |
| address known | from the first request until the status of every Service has its address |
| first answer | from the first request until every address answers an HTTP request with 200 |
| deleted, gone from the cloud | until no Service, load balancer, floating IP or security group of them is left |

openstack-cloud-controller-manager is upstream's unmodified program. Its settings are upstream's defaults, so it works on
one Service at a time (`--concurrent-service-syncs=1`), except `lb-provider=moyai`, `manage-security-groups=true`,
`create-monitor=true` and `--controllers=service`. moyai's controller has the settings that every cluster has.
"""

_ACCEPTANCE = """
## gophercloud's acceptance tests

The tests run as upstream's CI runs them: as administrator, one package after the other. Tests that refuse an
administrator run as the user `demo`.
"""


def load() -> dict[str, Any]:
    return json.loads(MEASURED.read_text())


def keep(measured: Mapping[str, Any]) -> None:
    """Write down what was measured; parts that were not measured stay as they are."""
    known = load() if MEASURED.exists() else {}
    MEASURED.write_text(json.dumps({**known, **measured}, indent=1) + "\n")
    PAGE.write_text(render(load(), expectations.load()))


def render(measured: Mapping[str, Any], expected: Expected) -> str:
    """The page."""
    text = _HEAD
    if race := measured.get("race"):
        text += _RACE + "\n" + conditions(race["conditions"]) + "\n\n" + "\n".join(race_table(race["laps"])) + "\n"
    if acceptance := measured.get("acceptance"):
        text += _ACCEPTANCE + "\n" + conditions(acceptance["conditions"]) + "\n\n"
        text += "\n".join(acceptance_table(acceptance["states"])) + "\n"
        text += _tests("Expected to fail", expected.failed) + _tests("Expected to be skipped", expected.skipped)
        text += "\n### Not run\n\n| package | reason |\n| --- | --- |\n"
        text += "".join(f"| {name} | {why} |\n" for name, why in sorted(expected.absent.items()))
    return text


def conditions(found: Mapping[str, Any]) -> str:
    """One sentence: versions, processors, load."""
    return "Conditions: " + ", ".join(f"{name} {value}" for name, value in found.items()) + "."


def race_table(laps: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row for each count and phase; the goal counts from several Services on."""
    rows = [
        "| Services at once | phase | moyai | openstack-ccm | ratio | goal | | load |",
        "| ---: | --- | ---: | ---: | ---: | ---: | --- | ---: |",
    ]
    for count in dict.fromkeys(lap["count"] for lap in laps):
        ours, theirs = (
            next(one for one in laps if one["count"] == count and one["controller"] == who) for who in (MOYAI, PEER)
        )
        for key, phase in _PHASES:
            ratio = ours[key] / theirs[key]
            goal, met = (f"≤ {GOAL:g} ×", "yes" if ratio <= GOAL else "no") if count > 1 else ("", "")
            loads = f"{ours['load']:.1f}, {theirs['load']:.1f}"
            rows.append(
                f"| {count} | {phase} | {ours[key]:.1f} s | {theirs[key]:.1f} s | {ratio:.2f} | {goal} | {met} | {loads} |"
            )
    return rows


def acceptance_table(states: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Package → state → number, as rows with a sum."""
    names = ("passed", "failed", "skipped")
    rows = ["| package | passed | failed, as expected | skipped, as expected |", "| --- | ---: | ---: | ---: |"]
    rows += [f"| {name} | " + " | ".join(str(found.get(one, 0)) for one in names) + " |" for name, found in states.items()]
    total = (str(sum(found.get(one, 0) for found in states.values())) for one in names)
    return [*rows, "| all | " + " | ".join(total) + " |"]


def _tests(title: str, reasons: Mapping[str, str]) -> str:
    by_reason: dict[str, list[str]] = {}
    for test, why in reasons.items():
        by_reason.setdefault(why, []).append(test)
    rows = "".join(f"| {'<br>'.join(f'`{test}`' for test in sorted(tests))} | {why} |\n" for why, tests in by_reason.items())
    return f"\n### {title}\n\n| test | reason |\n| --- | --- |\n{rows}"


if __name__ == "__main__":
    keep({})
    click.echo(f"{PAGE} written", err=True)

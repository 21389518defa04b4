"""When a cloud's agents count as reporting: not by what they said before they, or their way to the API, ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moyai.localcloud.agents import ServiceAgent, expected, silent
from moyai.localcloud.layout import LocalCloudConfig

CONFIG = LocalCloudConfig()
REPORTED = [ServiceAgent(kind, host, alive=True, reported=1000.0) for kind, host in sorted(expected(CONFIG))]


def test_agents_that_reported_after_everything_was_started_are_there() -> None:
    assert silent(CONFIG, REPORTED, starts={"mariadb": 990.0, "nova-compute-hv2": 999.0}) == []
    assert silent(CONFIG, REPORTED, starts={"octavia-worker": 2000.0}) == [], "nobody reports through it"


def test_a_report_within_the_second_of_the_start_counts() -> None:
    assert silent(CONFIG, REPORTED, starts={"rabbitmq": 1000.9}) == []


@pytest.mark.parametrize(
    ("started", "missing"),
    [
        ("nova-compute-hv2", {"nova-compute on hv2"}),
        ("neutron-dhcp-hv1", {"DHCP agent on hv1"}),
        ("neutron-linuxbridge-hv2", {"Linux bridge agent on hv2"}),
        ("cinder-volume", {"cinder-volume on hv1@az1", "cinder-volume on hv1@az2"}),
    ],
)
def test_what_was_started_again_is_missing_until_it_reports(started: str, missing: set[str]) -> None:
    assert set(silent(CONFIG, REPORTED, starts={started: 1005.0})) == missing


@pytest.mark.parametrize(("started", "count"), [("mariadb", len(REPORTED)), ("rabbitmq", len(REPORTED)), ("neutron-server", 5)])
def test_whatever_reports_pass_was_started_again(started: str, count: int) -> None:
    assert len(silent(CONFIG, REPORTED, starts={started: 1005.0})) == count
    again = [replace(one, reported=1006.0) for one in REPORTED]
    assert silent(CONFIG, again, starts={started: 1005.0}) == []


def test_what_the_api_takes_for_dead_is_missing() -> None:
    dead = [replace(one, alive=one.kind != "L3 agent") for one in REPORTED]
    assert silent(CONFIG, dead, starts={}) == ["L3 agent on hv1"]

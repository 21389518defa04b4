"""What the benchmarks make of what they measured: ratios, tables, requests in logs, moments in journals."""

from __future__ import annotations

from pathlib import Path

import pytest

from moyai.localcloud.launch_wsgi import logged
from tests.bench import observe
from tests.bench.calls import Counter
from tests.bench.figures import Figure, Samples, table


def test_a_ratio_is_of_medians_and_the_goal_is_for_it() -> None:
    floor, measured = Samples("floor"), Samples("up")
    for value in (20.0, 22.0, 90.0):
        floor.add({"CoreDNS": value}, 1.0)
    measured.add({"first call": 0.5, "CoreDNS": 33.0}, 2.0)
    first, dns = measured.figures(floor=floor, goals={"CoreDNS": 1.2})
    assert first.ratio is None
    assert first.met is None
    assert dns.ratio == pytest.approx(1.5)
    assert dns.met is False
    assert dns.data()["values"] == [33.0]


def test_the_table_tells_spread_runs_and_load() -> None:
    figures = [
        Figure("down", "whole", (12.0, 14.0, 31.0), goal=20.0, load=(1.0, 1.5, 9.0)),
        Figure("down", "requests", (7.0,), unit="calls", load=(1.0,)),
    ]
    lines = table(figures)
    assert lines[1].split("  ")[0] == "down"
    assert "14.0 (12.0 to 31.0) s" in lines[1]
    assert "≤ 20 s" in lines[1]
    assert "yes" in lines[1]
    assert lines[1].endswith("1.5 (1.0 to 9.0)")
    assert lines[2].startswith("      requests")
    assert "7" in lines[2].split()


def test_requests_of_one_client_since_the_count_began(tmp_path: Path) -> None:
    nova, octavia = tmp_path / "nova-api.log", tmp_path / "octavia-api.log"
    nova.write_text('2026 INFO [-] 10.251.0.9 "GET /v2.1/servers HTTP/1.1" status: 200\n')
    counter = Counter(tmp_path, "10.251.0.9")
    with nova.open("a") as log:
        log.write('2026 INFO [-] 10.251.0.9 "GET /v2.1/servers/detail?tags=x HTTP/1.1" status: 200\n')
        log.write('2026 INFO [-] 10.251.0.90 "GET /v2.1/servers HTTP/1.1" status: 200\n')

    def application(environ: dict[str, object], start: object) -> list[bytes]:
        assert callable(start)
        start("201 Created", [])
        return [b"{}"]

    lines: list[str] = []
    call = logged(application, lines.append)
    call({"REMOTE_ADDR": "10.251.0.9", "REQUEST_METHOD": "POST", "PATH_INFO": "/v2/lbaas/loadbalancers"}, lambda *_: None)
    octavia.write_text("\n".join(lines) + "\n")
    assert counter.requests() == [
        ("Nova", "GET", "/v2.1/servers/detail"),
        ("Octavia", "POST", "/v2/lbaas/loadbalancers"),
    ]
    assert counter.by_api() == {"Nova": 1, "Octavia": 1}


def test_moments_in_journals() -> None:
    plane = observe.journal(
        "100.5 bench-control-plane-0 systemd-journald[20]: Journal started\n"
        "102.0 bench-control-plane-0 bootstrap[80]: moyai: unsealing the authorities\n"
        "103.0 bench-control-plane-0 bootstrap[80]: moyai: kubeadm init\n"
        "110.0 bench-control-plane-0 bootstrap[80]: moyai: kubeadm init done\n"
    )
    first, second = ({"boot": 101.0, "kubeadm join": at, "bootstrap done": at + 2} for at in (111.0, 112.5))
    assert observe.machine_phases({"plane": plane, "w0": first, "w1": second}, "plane") == {
        "control plane boots": 100.5,
        "user data runs": 102.0,
        "kubeadm init begins": 103.0,
        "kubeadm init done": 110.0,
        "workers join": 112.5,
        "kubeadm joins done": 114.5,
    }
    assert observe.machine_phases({"plane": {}, "w0": {}}, "plane") == {}

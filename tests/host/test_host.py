"""Machines with Kubernetes on the hosts that most users have: stock Debian, systemd, cgroup version 2. `make test-host`.

The same code as on this host: ``moyai.linux``, the local cloud's own namespace, the lifecycle's own user data, the node image.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from moyai.core.paths import default_paths
from moyai.core.progress import Event, Reporter
from moyai.images import node_image
from moyai.images.cache import Cache
from moyai.toolchain import Toolchain
from tests.host import plan, vm

#: Minutes on an idle machine; emulation shares the processors with whatever else runs.
_SECONDS = 1500
#: What the last thing that is tried is called: a guest that died silently has not said it.
_LAST = "nothing is left: control groups, mounts, namespaces, links, settings"


@pytest.mark.parametrize("release", os.environ.get("MOYAI_TEST_RELEASES", "12 13").split())
def test_kubernetes_on_machines_of_a_stock_host(release: str, tmp_path: Path) -> None:
    paths = default_paths()
    cache = Cache(paths.cache / "test-host")
    reporter = Reporter(_show)
    image = node_image.ensure(Toolchain(paths, reporter), paths, reporter=reporter)
    guest = vm.guest(cache, release, _say)
    lab = vm.lab(cache, image, _say)
    plan.write(tmp_path)
    began = time.monotonic()
    code = vm.boot(guest, lab, share=tmp_path, timeout=_SECONDS)
    _say(f"Debian {release}: {time.monotonic() - began:.0f} s from power-on to power-off")
    results = _results(tmp_path)
    for result in results:
        _say(_line(result))
    end = (tmp_path / "serial.log").read_text(errors="replace")[-3000:]
    said = (tmp_path / "out.log").read_text(errors="replace")[-3000:] if (tmp_path / "out.log").exists() else ""
    assert code == 0, f"the virtual machine ended with {code}: {end}"
    assert results, end
    assert [result for result in results if not result["ok"]] == [], said
    assert results[-1]["what"] == _LAST, f"{said}\n{end}"


def _results(share: Path) -> list[dict[str, object]]:
    file = share / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _line(result: dict[str, object]) -> str:
    word = "ok " if result["ok"] else "NOT"
    return f"  {word} at {result['uptime']:6} s: {result['what']} ({result['seconds']} s) {result['detail']}"


def _say(text: str) -> None:
    print(text, flush=True)


def _show(event: Event) -> None:
    if event.kind in ("started", "failed", "note"):
        _say(f"{event.kind} {event.step} {event.detail}")

"""Findings, written where the tests of the real host read them; and waiting."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moyai.localcloud.layout import LocalCloudConfig

SHARE, LAB = Path("/share"), Path("/lab")
RESULTS = SHARE / "results.jsonl"
CONFIG = LocalCloudConfig(name="try", zones=("az1",))
Json = dict[str, Any]


def report(what: str, ok: bool, *, seconds: float = 0.0, detail: str = "") -> None:
    line = {"what": what, "ok": ok, "seconds": round(seconds, 1), "detail": detail, "uptime": round(time.monotonic(), 1)}
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


@contextmanager
def trying(what: str) -> Generator[list[str]]:
    """Report what happens within; the list takes details. A failure ends the run."""
    began, detail = time.monotonic(), list[str]()
    try:
        yield detail
    except BaseException as error:
        report(what, False, seconds=time.monotonic() - began, detail=f"{' '.join(detail)} {error!r}")
        raise
    report(what, True, seconds=time.monotonic() - began, detail=" ".join(detail))


def wait(what: str, found: Callable[[], str | None], *, seconds: float, every: float = 1.0) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (value := found()) is not None:
            return value
        time.sleep(every)
    raise TimeoutError(f"not within {seconds:.0f} s: {what}")

"""FRR on a router beside the cluster: its daemons run, with the configuration that the machine was made with.

Always holds: a daemon that starts, for the first time or again, gets its whole configuration; FRR's configuration has no file,
so the machine's own is the only one. A command that FRR refuses is in the log, and all others count.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from moyai.core.errors import UsageError
from moyai.core.reading import read_text
from moyai.linux.frr import DAEMONS, Frr, FrrGone, FrrPlace
from moyai.runtime.logs import set_up

_log = logging.getLogger(__name__)
#: Bytes.
_LIMIT = 1 << 18
#: Seconds until a configuration that a daemon did not take is sent again.
_PAUSE = 1.0


def run_router(config: Path) -> int:
    """Runs until a signal. Raises UsageError for a file that moyai has not written."""
    commands = read_commands(config)
    set_up("info")
    return asyncio.run(_main(commands, FrrPlace()))


def read_commands(config: Path) -> Mapping[str, list[str]]:
    """Daemon → its commands."""
    try:
        found = json.loads(read_text(config, limit=_LIMIT, should="a router's configuration"))
    except ValueError as error:
        raise UsageError(f"{config}: should be what moyai writes ({error})") from None
    rows = cast("dict[object, object]", found) if isinstance(found, dict) else {}
    right = all(name in DAEMONS and isinstance(lines, list) for name, lines in rows.items())
    if not rows or not right:
        raise UsageError(f"{config}: should have commands of {', '.join(DAEMONS)}")
    return cast("dict[str, list[str]]", rows)


async def _main(commands: Mapping[str, list[str]], place: FrrPlace) -> int:
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    await run_frr(commands, place, end=end)
    return 0


async def run_frr(commands: Mapping[str, list[str]], place: FrrPlace, *, end: asyncio.Event) -> None:
    """FRR with these commands, until ``end``."""
    started: asyncio.Queue[str] = asyncio.Queue()

    def line(daemon: str, text: str) -> None:
        _log.info("%s: %s", daemon, text)

    async with Frr.running(place, on_start=started.put_nowait, on_line=line) as frr:
        configuring = asyncio.create_task(_configure(frr, commands, started=started))
        try:
            await end.wait()
        finally:
            configuring.cancel()
            await asyncio.gather(configuring, return_exceptions=True)


async def _configure(frr: Frr, commands: Mapping[str, list[str]], *, started: asyncio.Queue[str]) -> None:
    while True:
        daemon = await started.get()
        try:
            refused = await frr.configure(daemon, commands.get(daemon, []))
        except FrrGone as error:
            _log.warning("%s", error)
            await asyncio.sleep(_PAUSE)
            started.put_nowait(daemon)
            continue
        for one in refused:
            _log.warning("FRR's %s refuses %r: %s", daemon, one.command, one.why)

"""The front's process: reads its settings, connects to the cloud below, serves until it is told to end."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moyai.cloud.factory import ADAPTERS
from moyai.core.clock import SystemClock
from moyai.core.errors import UsageError
from moyai.nifcloud_front.front import Front, FrontParts
from moyai.nifcloud_front.http_server import FrontServer
from moyai.nifcloud_front.pace import Pace
from moyai.nifcloud_front.store.front_store import FrontStore
from moyai.nifcloud_front.wire.service_model import load_model
from moyai.nifcloud_front.worker import Worker
from moyai.nifcloud_front.works.step import WorkContext
from moyai.nifcloud_front.works.watch import set_zones


@dataclass(frozen=True)
class FrontSettings:
    """The settings file, JSON; it holds secrets.

    ``cloud``: name of the cloud below, as its own configuration calls it. ``zones``: NIFCLOUD's name → availability zone below.
    ``keys``: access key → secret key.
    """

    address: str
    port: int
    region: str
    cloud: str
    database: str
    certificate: str
    certificate_key: str
    zones: Mapping[str, str]
    keys: Mapping[str, str]

    @classmethod
    def load(cls, file: Path) -> FrontSettings:
        """Raises UsageError."""
        try:
            data: dict[str, Any] = json.loads(file.read_text())
            return cls(**data)
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{file} is no settings file of the front: {error}") from None

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


def main(file: Path) -> int:
    """Serve until SIGTERM or SIGINT."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = FrontSettings.load(file)
    clock = SystemClock()

    def now() -> float:
        return clock.now().timestamp()

    store = FrontStore(Path(settings.database), now)
    context = WorkContext(store, ADAPTERS.connect(settings.cloud), Pace(), now)
    set_zones(context, list(settings.zones.items()))
    worker = Worker(context, clock)
    parts = FrontParts(
        load_model(),
        store,
        context,
        worker,
        clock,
        keys=settings.keys,
        region=settings.region,
    )
    stop = threading.Event()
    certificate = (Path(settings.certificate), Path(settings.certificate_key))
    server = FrontServer((settings.address, settings.port), Front(parts), certificate=certificate)

    def end(*_: object) -> None:
        stop.set()
        # waits for the serving loop, which runs in this thread
        threading.Thread(target=server.shutdown).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    working = threading.Thread(target=worker.run, args=(stop,), name="worker")
    working.start()
    with server:
        server.serve_forever()
    worker.wake()
    working.join()
    store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

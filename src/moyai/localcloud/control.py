"""Talks to a cloud's supervisor over its socket: status, release, restart, and a stream of changes to wait on."""

from __future__ import annotations

import json
import socket
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import MoyaiError, Retriable
from moyai.core.waiting import until
from moyai.localcloud.supervision import ServiceStatus


class Control:
    """A cloud's supervisor, as seen from the host. Raises Retriable when it does not answer."""

    def __init__(self, file: Path, clock: Clock | None = None) -> None:
        self._file = file
        self._clock = clock or SystemClock()

    def status(self) -> list[ServiceStatus]:
        return next(self._ask({"do": "status"}, 10))

    def release(self, names: Sequence[str]) -> None:
        next(self._ask({"do": "release", "names": list(names)}, 10))

    def restart(self, names: Sequence[str]) -> None:
        next(self._ask({"do": "restart", "names": list(names)}, 10))

    def reload(self) -> None:
        """Let the supervisor read its plan again; running services go on."""
        next(self._ask({"do": "reload"}, 10))

    def wait_ready(self, names: Collection[str], timeout: float, *, patience: int = 4) -> None:
        """Return once all are ready. Raises MoyaiError after ``timeout`` seconds, or when one dies again and again."""
        deadline = self._clock.monotonic() + timeout
        left: set[str] = set(names)
        first: dict[str, int] = {}
        try:
            for services in self._ask({"do": "watch"}, timeout):
                found = {service.name: service for service in services}
                left = {name for name in names if name not in found or found[name].phase != "ready"}
                if not left:
                    return
                for name in left & found.keys():
                    service = found[name]
                    if service.restarts - first.setdefault(name, service.restarts) > patience:
                        raise MoyaiError(f"{name} keeps dying ({service.last_exit})", hint=f"see `moyai cloud logs {name}`")
                if self._clock.monotonic() > deadline:
                    break
        except TimeoutError:
            pass
        raise MoyaiError(f"not ready after {timeout:.0f} s: {', '.join(sorted(left))}", hint="see `moyai cloud logs`")

    def wait_answer(self, timeout: float) -> None:
        """Return once the supervisor answers at all; it comes up within a second of its namespace."""
        until(self.status, clock=self._clock, timeout=timeout, pause=0.05)

    def _ask(self, request: dict[str, Any], timeout: float) -> Iterator[list[ServiceStatus]]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(timeout)
            try:
                channel.connect(str(self._file))
                channel.sendall(json.dumps(request).encode() + b"\n")
            except OSError as error:
                raise Retriable(f"the cloud's supervisor does not answer ({error.strerror or error})") from error
            with channel.makefile("rb") as stream:
                while line := stream.readline():
                    answer: dict[str, Any] = json.loads(line)
                    yield [ServiceStatus(**service) for service in answer["services"]]
        raise Retriable("the cloud's supervisor went away")

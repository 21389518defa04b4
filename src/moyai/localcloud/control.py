"""Talks to a cloud's supervisor over its socket: status, release, restart, and a stream of changes to wait on."""

from __future__ import annotations

import json
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import MoyaiError, Retriable, Terminal
from moyai.core.waiting import until
from moyai.localcloud.supervision import ServiceStatus

#: The supervisor answers a request within this time; a busy machine takes longer than an idle one.
ANSWER_SECONDS = 10.0


class _Silent(Retriable):
    """The supervisor did not answer in time."""


class _Ended(Retriable):
    """The supervisor ended while it was asked."""


class Control:
    """A cloud's supervisor, as seen from the host.

    Raises Retriable when the supervisor does not answer or ends meanwhile, Terminal for what it cannot do.
    """

    def __init__(self, file: Path, clock: Clock | None = None) -> None:
        self._file = file
        self._clock = clock or SystemClock()

    def status(self) -> list[ServiceStatus]:
        return next(self._ask({"do": "status"}, ANSWER_SECONDS))

    def release(self, names: Sequence[str]) -> None:
        next(self._ask({"do": "release", "names": list(names)}, ANSWER_SECONDS))

    def restart(self, names: Sequence[str]) -> None:
        next(self._ask({"do": "restart", "names": list(names)}, ANSWER_SECONDS))

    def reload(self) -> None:
        """Let the supervisor end, so that the next one reads the plan again. Running services go on.

        Returns once the supervisor has ended: ``wait_answer`` then waits for the next one.
        """
        answers = self._ask({"do": "reload"}, ANSWER_SECONDS)
        next(answers)
        with suppress(_Ended):
            next(answers)

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
        except _Silent:
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
                with channel.makefile("rb") as stream:
                    while line := stream.readline():
                        answer: dict[str, Any] = json.loads(line)
                        if "error" in answer:
                            raise Terminal(answer["error"])
                        yield [ServiceStatus(**service) for service in answer["services"]]
            except ConnectionResetError as error:
                raise _Ended("the cloud's supervisor went away") from error
            except TimeoutError as error:
                raise _Silent(f"the cloud's supervisor does not answer within {timeout:.0f} s") from error
            except OSError as error:
                raise Retriable(f"the cloud's supervisor does not answer ({error.strerror or error})") from error
        raise _Ended("the cloud's supervisor went away")

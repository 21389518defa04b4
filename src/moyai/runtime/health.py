"""A small HTTP server for probes and metrics: /healthz, /readyz, /metrics. It answers GET and nothing else.

It runs in the event loop of the controllers, so that a loop that hangs fails its probes; ``http.server`` and the server of
prometheus-client answer from a thread and would report such a process as alive. A server library for the loop costs more than
three paths without bodies are worth: aiohttp is ten packages of 12 MB and takes 0.3 s to import.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

#: What is wrong, empty when nothing is.
Check = Callable[[], str]
#: By name.
Checks = Mapping[str, Check]

_SECONDS = 5.0


class HealthServer:
    """``live`` and ``ready`` are asked at each probe; ``metrics`` gives the text of a scrape."""

    def __init__(self, *, live: Checks, ready: Checks, metrics: Callable[[], str]) -> None:
        self._live, self._ready, self._metrics = live, ready, metrics
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Returns the port (``port`` 0: a free one). Raises OSError when it cannot be had."""
        self._server = await asyncio.start_server(self._serve, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError, OSError, ValueError, asyncio.IncompleteReadError):
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            words = head.split(b"\r\n", 1)[0].decode("latin-1").split()
            status, body = self.answer(words[0] if words else "", words[1] if len(words) > 1 else "/")
            text = body.encode()
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n".encode()
                + text
            )
            async with asyncio.timeout(_SECONDS):
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def answer(self, method: str, path: str) -> tuple[str, str]:
        """Status line and body for a request."""
        if method != "GET":
            return "405 Method Not Allowed", "only GET\n"
        match path.split("?", 1)[0]:
            case "/healthz" | "/livez":
                return _checked(self._live)
            case "/readyz":
                return _checked({**self._live, **self._ready})
            case "/metrics":
                return "200 OK", self._metrics()
            case _:
                return "404 Not Found", "not found\n"


def _checked(checks: Checks) -> tuple[str, str]:
    wrong = {name: why for name, check in checks.items() if (why := check())}
    if wrong:
        return "503 Service Unavailable", "".join(f"{name}: {why}\n" for name, why in wrong.items())
    return "200 OK", "ok\n"

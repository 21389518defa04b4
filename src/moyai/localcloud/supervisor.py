"""Starts a cloud's services and restarts those that die. A service starts as soon as the services that it needs are ready.

``python -m moyai.localcloud.supervisor ROOT`` runs inside the cloud's namespaces, below the cloud's init. What always holds:

- A service runs at most once. Its process waits until it is recorded (pid and start time) before it becomes the service, and
  ends if the supervisor dies before that. After a supervisor was killed, the next one finds the services by these records and
  continues to watch them.
- A full disk ends no supervisor: a service that cannot be recorded is not started, and is tried again.
- When a service's main process ends, the rest of its process group is ended before the service starts again. Machines and
  daemons that outlive their service on purpose are in other sessions.
- Every restart is counted, logged and shown by ``status``.

The module imports only a small part of the standard library, because every start of a cloud waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from moyai.core.backoff import Backoff
from moyai.linux import daemons, proc, process_end
from moyai.linux.files import write_durably
from moyai.localcloud.supervision import Phase, ServiceSpec, ServiceStatus, SupervisorPlan

#: A log is cut when it has grown to this many bytes; one older part is kept.
LOG_BYTES = 16 << 20
#: A service that ran this long has proved itself: its next failure counts as the first.
STEADY_SECONDS = 60.0


class Supervised:
    """One service and the task that keeps it running."""

    def __init__(self, spec: ServiceSpec, supervisor: Supervisor) -> None:
        self.spec = spec
        self.name = spec.name
        self.state = ServiceStatus(self.name)
        self.ready = asyncio.Event()
        self.released = asyncio.Event()
        self._supervisor = supervisor
        self._backoff = Backoff(base=0.5, ceiling=20.0, jitter=0.1)
        self._record = supervisor.root / "run" / "services" / f"{self.name}.json"

    async def run(self) -> None:
        failures = 0
        adopted = self._adopt()
        if adopted is None:
            self._phase("held" if not self.released.is_set() else "waiting")
            await self.released.wait()
            self._phase("waiting")
            for other in self.spec.after:
                await self._supervisor.services[other].ready.wait()
        while True:
            started = time.monotonic()
            if adopted is None:
                try:
                    record = self._start()
                except OSError as error:
                    self._failed(f"cannot be started: {error}")
                    failures += 1
                    await asyncio.sleep(self._backoff.delay(failures))
                    continue
            else:
                record, adopted = adopted, None
            pid = record.pid
            self._update(pid=pid, since=record.since())
            self._phase("starting")
            ended = asyncio.ensure_future(process_end.ended(pid))
            probe = asyncio.ensure_future(self._wait_ready())
            await asyncio.wait({ended, probe}, return_when=asyncio.FIRST_COMPLETED)
            if probe.done() and not ended.done():
                self.ready.set()
                self._phase("ready")
            reason = await ended
            probe.cancel()
            daemons.kill_group(pid)
            self.ready.clear()
            self._update(restarts=self.state.restarts + 1)
            failures = 0 if time.monotonic() - started > STEADY_SECONDS else failures + 1
            self._failed(reason)
            await asyncio.sleep(self._backoff.delay(max(0, failures - 1)) if failures else 0)

    def stop(self) -> None:
        """Ask the running process to end; it is then restarted."""
        if self.state.pid:
            daemons.send(self.state.pid, self.spec.stop)

    def _adopt(self) -> proc.ProcessRecord | None:
        """The process that an earlier supervisor started, if it runs; what was counted goes on."""
        try:
            data: dict[str, Any] = json.loads(self._record.read_text())
        except (FileNotFoundError, ValueError):
            return None
        self._update(restarts=data["restarts"], last_exit=data["last_exit"])
        record = proc.ProcessRecord(**data["process"])
        return record if record.alive() else None

    def _start(self) -> proc.ProcessRecord:
        argv = daemons.in_network(self.spec.netns, self.spec.argv) if self.spec.netns else self.spec.argv
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **self.spec.env}
        with daemons.held(argv, env=environment, log=self._supervisor.log_file(self.name)) as pid:
            record = proc.ProcessRecord.of(pid)
            kept = {"process": asdict(record), "restarts": self.state.restarts, "last_exit": self.state.last_exit}
            write_durably(self._record, json.dumps(kept))
        return record

    async def _wait_ready(self) -> None:
        port, socket = self.spec.port, self.spec.socket
        while port or socket:
            with contextlib.suppress(OSError):
                if port:
                    _, writer = await asyncio.open_connection(self._supervisor.address, port)
                else:
                    _, writer = await asyncio.open_unix_connection(socket)
                writer.close()
                return
            await asyncio.sleep(0.1)

    def _failed(self, reason: str) -> None:
        self._update(last_exit=reason, pid=0)
        self._supervisor.say(f"{self.name} {reason}; restart {self.state.restarts}")
        self._phase("failed")

    def _update(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def _phase(self, phase: Phase) -> None:
        self._update(phase=phase)
        self._supervisor.changed()


class Supervisor:
    """All services of one cloud, and the socket that answers ``moyai cloud``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.services: dict[str, Supervised] = {}
        self.address = ""
        self._watchers: set[asyncio.Event] = set()

    def log_file(self, name: str) -> Path:
        return self.root / "log" / f"{name}.log"

    def say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            sys.stderr.flush()

    def changed(self) -> None:
        for event in self._watchers:
            event.set()

    async def run(self) -> None:
        plan = SupervisorPlan.load(self.root / "run" / "services.json")
        self.address = plan.address
        (self.root / "run" / "services").mkdir(exist_ok=True, mode=0o700)
        self.services = {spec.name: Supervised(spec, self) for spec in plan.services}
        held = set(plan.held) - set(_read_lines(self.root / "run" / "released"))
        for service in self.services.values():
            if service.name not in held:
                service.released.set()
        socket = self.root / "run" / "supervisor.sock"
        socket.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, socket)
        self.say(f"supervisor starts with {len(self.services)} services")
        tasks = [asyncio.ensure_future(service.run()) for service in self.services.values()]
        tasks.append(asyncio.ensure_future(self._cut_logs()))
        async with server:
            # a task that ends at all is a fault of ours: end, so that init restarts us
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    def status(self) -> dict[str, Any]:
        return {"services": [asdict(service.state) for service in self.services.values()]}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                request: dict[str, Any] = json.loads(await reader.readline() or b"{}")
                await self._answer(request, writer)
            finally:
                writer.close()

    async def _answer(self, request: Mapping[str, Any], writer: asyncio.StreamWriter) -> None:
        async def send(data: Mapping[str, Any]) -> None:
            writer.write(json.dumps(data).encode() + b"\n")
            await writer.drain()

        names = [name for name in request.get("names", []) if name in self.services]
        match request.get("do"):
            case "release":
                released = self.root / "run" / "released"
                try:
                    write_durably(released, "".join(f"{name}\n" for name in [*_read_lines(released), *names]))
                except OSError as error:
                    await send({"error": f"{error.filename} cannot be written: {error.strerror}"})
                    return
                for name in names:
                    self.services[name].released.set()
                await send(self.status())
            case "restart":
                for name in names:
                    self.services[name].stop()
                await send(self.status())
            case "reload":
                # init restarts us at once; we then read the new plan and find the services that run
                self.say("reload was asked for")
                await send(self.status())
                os._exit(0)
            case "watch":
                event = asyncio.Event()
                self._watchers.add(event)
                try:
                    while True:
                        event.clear()
                        await send(self.status())
                        await event.wait()
                finally:
                    self._watchers.discard(event)
            case _:
                await send(self.status())

    async def _cut_logs(self) -> None:
        while True:
            for file in (self.root / "log").glob("*.log"):
                with contextlib.suppress(OSError):
                    if file.stat().st_size > LOG_BYTES:
                        # all writers append, so cutting the file under them is safe
                        await asyncio.to_thread(_cut, file)
            await asyncio.sleep(60)


def _cut(file: Path) -> None:
    """Empty a log that has grown, and keep its content as the older part; where the disk is full, room is worth more."""
    older = file.with_suffix(".log.1")
    try:
        with file.open("rb") as source, older.open("wb") as target:
            while block := source.read(1 << 20):
                target.write(block)
    except OSError:
        older.unlink(missing_ok=True)
    os.truncate(file, 0)


def _read_lines(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def main() -> None:
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    root = Path(sys.argv[1])
    log = os.open(root / "log" / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    asyncio.run(Supervisor(root).run())


if __name__ == "__main__":
    main()

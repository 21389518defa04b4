"""FRR's daemons (zebra, bgpd, bfdd) as children of this process, and the conversation with them over their own sockets.

Always holds: a daemon that ends is started again, alone, after a pause that grows; none outlives this process. Commands go to
the sockets that FRR's shell uses, not through that shell: no process for a change, and no password in an argument or a file.
zebra leaves its routes in the kernel when it ends, and takes them over when it starts.

Users: the daemons run as root. FRR demands that root is a member of the group ``frrvty``, and these capabilities: NET_ADMIN,
NET_RAW, NET_BIND_SERVICE, SYS_ADMIN, SETGID. Source: lib/privs.c, lib/vty.c and vtysh/vtysh.c of FRR 8.4.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

#: In the order in which they start.
DAEMONS: tuple[str, ...] = ("zebra", "bfdd", "bgpd")
#: Seconds: until a daemon that was started answers; until one that ended is started again, at first and at most.
_START, _PAUSE, _LONGEST = 20.0, 0.2, 5.0
#: A daemon that ran for so many seconds has not failed at once.
_STABLE = 30.0
_POLL, _GRACE, _ANSWER = 0.02, 2.0, 10.0
#: Bytes of an answer: thousands of prefixes of each of several routers.
_LONGEST_ANSWER = 1 << 24
#: Seconds for which zebra keeps routes of an earlier zebra that nobody asks for again.
_KEPT = 60
_OWN: dict[str, tuple[str, ...]] = {
    # routers may be beyond a default route
    "zebra": ("ip nht resolve-via-default",)
}
_CHANGE = re.compile(r"%ADJCHANGE: neighbor ([0-9.]+)\S* in vrf \S+ (Up|Down)\s*(.*)")
_SECRET = re.compile(r"( password )\S+")


class FrrGone(OSError):
    """A daemon does not answer."""


@dataclass(frozen=True)
class FrrPlace:
    """``prefix``: words before each program, as those that enter a namespace. ``root``: what programs see as ``/``. ``run``:
    folder of sockets, as programs see it."""

    prefix: tuple[str, ...] = ()
    root: Path = Path("/")
    run: str = "/run/frr"
    programs: str = "/usr/lib/frr"


@dataclass(frozen=True)
class FrrRefusal:
    """Both without a password."""

    command: str
    why: str


@dataclass(frozen=True)
class Adjacency:
    """A session came up, or went down and why."""

    neighbour: str
    up: bool
    why: str = ""


def adjacency(line: str) -> Adjacency | None:
    """Out of a line of bgpd's log; None for another line."""
    found = _CHANGE.search(line)
    return Adjacency(found[1], found[2] == "Up", found[3].strip()) if found else None


class Frr:
    """``async with Frr.running(place, …)``. ``on_start``: called with the name of a daemon that answers and has no
    configuration; ``on_line`` with a daemon and each line of its log."""

    def __init__(
        self,
        place: FrrPlace,
        *,
        on_start: Callable[[str], None],
        on_line: Callable[[str, str], None] = lambda _daemon, _line: None,
    ) -> None:
        self._place, self._on_start, self._on_line = place, on_start, on_line
        self._children: dict[str, asyncio.subprocess.Process] = {}
        #: Of each daemon: what reads its log, to its end.
        self._reading: dict[str, asyncio.Task[None]] = {}
        #: How often each daemon has ended by itself.
        self.restarts: dict[str, int] = dict.fromkeys(DAEMONS, 0)

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        place: FrrPlace,
        *,
        on_start: Callable[[str], None],
        on_line: Callable[[str, str], None] = lambda _daemon, _line: None,
    ) -> AsyncGenerator[Self]:
        """The block runs beside the daemons. Raises OSError where they cannot be started at all."""
        (place.root / place.run.lstrip("/")).mkdir(parents=True, exist_ok=True)
        made = cls(place, on_start=on_start, on_line=on_line)
        tasks: list[asyncio.Task[None]] = []
        try:
            for daemon in DAEMONS:
                # the next one talks to this one when it starts
                await made._start(daemon)
                tasks.append(asyncio.create_task(made._keep(daemon), name=f"FRR's {daemon}"))
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await made._end()

    def pid(self, daemon: str) -> int:
        """0 while it does not run."""
        child = self._children.get(daemon)
        return child.pid if child and child.returncode is None else 0

    async def configure(self, daemon: str, commands: Sequence[str]) -> list[FrrRefusal]:
        """All of the commands, in their order; returns those that the daemon refuses. Raises FrrGone."""
        if not commands:
            return []
        refused: list[FrrRefusal] = []
        async with self._talk(daemon) as ask:
            for command in ("enable", "configure terminal", *commands, "end"):
                said, code = await ask(command)
                if code:
                    refused.append(FrrRefusal(*(_SECRET.sub(r"\1…", one) for one in (command, said.strip()))))
        return refused

    async def show(self, daemon: str, command: str) -> Any:
        """What a command that ends with ``json`` says. Raises FrrGone, also for what is no JSON."""
        async with self._talk(daemon) as ask:
            await ask("enable")
            said, _ = await ask(command)
        try:
            return json.loads(said)
        except ValueError as error:
            raise FrrGone(f"FRR's {daemon} answers {command!r} with {said[:80]!r}") from error

    def md5_failures(self) -> int:
        """How many packets the kernel of this network has dropped because of a wrong, missing or unwanted password."""
        path = f"/proc/{self.pid('bgpd') or 'self'}/net/netstat"
        try:
            rows = [one.split() for one in Path(path).read_text(encoding="ascii").splitlines() if one.startswith("TcpExt:")]
        except OSError:
            return 0
        names, values = rows
        return sum(int(value) for name, value in zip(names, values, strict=True) if name.startswith("TCPMD5"))

    @asynccontextmanager
    async def _talk(self, daemon: str) -> AsyncGenerator[Callable[[str], Any]]:
        """A question is a text with a zero behind it; an answer ends with three zeros and a code."""
        socket = self._place.root / self._place.run.lstrip("/") / f"{daemon}.vty"
        try:
            async with asyncio.timeout(_ANSWER):
                reader, writer = await asyncio.open_unix_connection(str(socket), limit=_LONGEST_ANSWER)
        except (OSError, TimeoutError) as error:
            raise FrrGone(f"FRR's {daemon} does not answer ({error})") from error

        async def ask(command: str) -> tuple[str, int]:
            try:
                async with asyncio.timeout(_ANSWER):
                    writer.write(command.encode() + b"\0")
                    said = await reader.readuntil(b"\0\0\0")
                    (code,) = await reader.readexactly(1)
            except asyncio.LimitOverrunError as error:
                raise FrrGone(f"FRR's {daemon} answers with more than {_LONGEST_ANSWER} bytes") from error
            except (OSError, EOFError, TimeoutError) as error:
                raise FrrGone(f"FRR's {daemon} ended in a conversation ({type(error).__name__})") from error
            return said[:-3].decode(errors="replace"), code

        try:
            yield ask
        finally:
            writer.close()

    async def _start(self, daemon: str) -> None:
        run = self._place.run
        words = ["-u", "root", "-g", "root", "-A", "127.0.0.1", "-P", "0", "-f", "/dev/null"]
        words += ["--vty_socket", run, "-z", f"{run}/zserv.api", "-i", f"{run}/{daemon}.pid"]
        words += ["--log", "stdout", "--log-level", "informational"]
        words += {"zebra": ["-r", "-K", str(_KEPT)], "bfdd": ["--bfdctl", f"{run}/bfdd.sock"]}.get(daemon, [])
        child = await asyncio.create_subprocess_exec(
            # it ends with this process, whatever ends that
            *("setpriv", "--pdeathsig", "KILL", *self._place.prefix, f"{self._place.programs}/{daemon}", *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        self._children[daemon] = child
        self._reading[daemon] = asyncio.create_task(self._read(daemon, child))
        async with asyncio.timeout(_START):
            while True:
                try:
                    async with self._talk(daemon) as ask:
                        await ask("enable")
                    break
                except FrrGone:
                    if child.returncode is not None:
                        raise FrrGone(f"FRR's {daemon} ended with {child.returncode} when it started") from None
                    await asyncio.sleep(_POLL)
        await self.configure(daemon, _OWN.get(daemon, ()))
        self._on_start(daemon)

    async def _read(self, daemon: str, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None
        while True:
            # read to the end in any case: a daemon whose pipe is full would block
            with contextlib.suppress(ValueError):  # a line that is too long
                if not (line := await child.stdout.readline()):
                    return
                self._on_line(daemon, line.decode(errors="replace").rstrip())

    async def _keep(self, daemon: str) -> None:
        """Start the daemon again whenever it ends."""
        loop = asyncio.get_running_loop()
        pause, since = _PAUSE, loop.time()
        while True:
            code = await self._children[daemon].wait()
            self.restarts[daemon] += 1
            self._on_line(daemon, f"ended with {code}, is started again")
            pause = _PAUSE if loop.time() - since >= _STABLE else min(pause * 2, _LONGEST)
            while True:
                await asyncio.sleep(pause)
                since = loop.time()
                try:
                    await self._start(daemon)
                    break
                except (OSError, TimeoutError) as error:
                    self._on_line(daemon, f"cannot be started: {error}")
                    await self._kill(daemon)
                    pause = min(pause * 2, _LONGEST)

    async def _end(self) -> None:
        """bgpd without a farewell, so that routers with graceful restart keep the paths until it is there again; bfdd with one,
        so that they take its end for no failure of the node."""
        for daemon in ("bgpd", "bfdd", "zebra"):
            if daemon == "bgpd":
                await self._kill(daemon)
            elif self.pid(daemon):
                self._children[daemon].send_signal(signal.SIGTERM)
                try:
                    async with asyncio.timeout(_GRACE):
                        await self._children[daemon].wait()
                except TimeoutError:
                    await self._kill(daemon)
        await asyncio.gather(*self._reading.values(), return_exceptions=True)

    async def _kill(self, daemon: str) -> None:
        if self.pid(daemon):
            self._children[daemon].kill()
            await self._children[daemon].wait()

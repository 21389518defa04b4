"""One HAProxy in a network namespace: started, reloaded without refusing a connection, watched and asked.

What always holds: the configuration is validated before it is used; the running process says by its ``description`` which
configuration it runs, so applying the same one again does nothing; a reload hands the listening sockets (``-x``) and the
servers' states to the new process, while the old one (``-sf``) finishes the connections it has.

The processes are daemons of their own: the caller may die and come back, and finds them by files: one names the process that
serves, one those that reloads left behind to finish their connections. Nobody searches the machine's processes, whose number
grows with that of the load balancers, except after a start that was cut off.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import select
import shutil
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from moyai.linux import netns
from moyai.linux.files import write_whole
from moyai.linux.process import ProcessError, run

PEER = "moyai"  # the name by which a process finds itself among the peers, to inherit its predecessor's stick tables
_STATE_HEADER = "1\n"
LOG_ADDRESS = (
    "127.0.0.1",
    1026,
)  # in the namespace: what the checks find is written there at once, one datagram for each finding


@dataclass(frozen=True)
class Row:
    """A line of HAProxy's statistics: ``proxy`` and ``server`` (or FRONTEND, BACKEND), status, last check, counters."""

    proxy: str
    server: str
    status: str
    check: str
    sessions: int
    sessions_total: int
    bytes_in: int
    bytes_out: int
    errors: int


class HAProxy:
    """The HAProxy whose files are in ``folder`` and which runs in the network namespace ``namespace``."""

    def __init__(self, folder: Path, namespace: str, *, socket_path: Path) -> None:
        """``socket_path``: the runtime socket; keep it well under the kernel's 107 characters, HAProxy appends to it."""
        self.folder = folder
        self.namespace = namespace
        self.socket_path = socket_path
        self._config = folder / "haproxy.cfg"
        self._pid = folder / "haproxy.pid"
        self._former = folder / "haproxy.former"  # of an earlier version's process, there is none
        self._starting = folder / "haproxy.starting"

    @property
    def idle_path(self) -> Path:
        """A socket for the port that HAProxy demands, even if it only runs checks."""
        return self.socket_path.with_suffix(".n")

    @property
    def state_path(self) -> Path:
        """Where the servers' states are handed over from one process to the next."""
        return self.folder / "servers.state"

    def header(self, *, checks_by_program: bool = False) -> str:
        """The ``global`` section. ``checks_by_program`` lets HAProxy start programs (for PING checks)."""
        lines = [
            "global",
            f"    stats socket {self.socket_path} mode 600 level admin expose-fd listeners",
            "    stats timeout 30s",
            f"    server-state-file {self.state_path}",
            f"    log {LOG_ADDRESS[0]}:{LOG_ADDRESS[1]} format raw local0 notice",
            "    nbthread 1",
            "    fd-hard-limit 65536",  # the tables are sized by it; where the hard limit is 10^9 they would eat the memory
            "    hard-stop-after 30m",  # for what a reload leaves behind
            "    spread-checks 5",
        ]
        if checks_by_program:
            lines += ["    external-check", "    insecure-fork-wanted"]  # ping needs root
        else:
            lines += ["    uid 65534", "    gid 65534"]
        return "\n".join(lines) + "\n"

    def pid(self) -> int | None:
        """The running process, or None. A number in a pid file of before a reboot is not mistaken for it."""
        try:
            pid = int(self._pid.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        return pid if self._is_ours(pid) else None

    def apply(self, config: str, checked: frozenset[str] = frozenset()) -> bool:
        """Let exactly this configuration run. ``checked``: the backends whose servers' states are worth handing over.

        Returns whether anything had to be done. Raises ProcessError with HAProxy's words when the configuration is wrong or
        cannot run; the former process then goes on.
        """
        digest = hashlib.sha256(config.encode()).hexdigest()[:32]
        text = config.replace("global\n", f"global\n    description {digest}\n", 1)
        old = self.pid()
        if old is not None and self.running_digest() == digest:
            return False
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if old is None:
            self._end_all()
            write_whole(self._config, text)
            self._save_state(frozenset())
            self._start()  # it looks at the configuration itself, and there is no former process to spare
            return True
        fresh = self.folder / "haproxy.cfg.checked"
        write_whole(fresh, text)
        self._save_state(checked)
        run(["haproxy", "-c", "-q", "-L", PEER, "-f", fresh], timeout=30)
        fresh.rename(self._config)
        listening = _listening(old)
        self._note_former(old)
        try:
            self._start("-x", self.socket_path, "-sf", str(old))
            _wait_deaf(old, listening)
        except ProcessError:
            # the old one died, or does not answer, between our look at it and now
            with contextlib.suppress(ProcessLookupError):
                os.kill(old, signal.SIGKILL)
            self._start()
        return True

    def stop(self) -> None:
        """End the process and what reloads left of former ones; nothing happens when none runs."""
        self._end_all()
        self._pid.unlink(missing_ok=True)

    def remove(self) -> None:
        """Stop it and delete its files."""
        self.stop()
        self.socket_path.unlink(missing_ok=True)
        self.idle_path.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, command: str) -> str:
        """Send one command to the runtime socket and return the answer. Raises OSError if HAProxy does not answer."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(3)
            link.connect(os.fspath(self.socket_path))
            link.sendall(command.encode() + b"\n")
            answer = bytearray()
            while part := link.recv(65536):
                answer += part
        return answer.decode(errors="replace")

    def running_digest(self) -> str | None:
        """Which configuration the process says that it runs."""
        try:
            lines = self.ask("show info").splitlines()
        except OSError:
            return None
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("description:")), None)

    def rows(self) -> list[Row]:
        """The statistics now. Raises OSError when the process does not answer."""
        text = self.ask("show stat").lstrip("# ")
        return [
            Row(
                proxy=one["pxname"],
                server=one["svname"],
                status=one["status"],
                check=one["check_status"].removeprefix("* "),
                sessions=int(one["scur"] or 0),
                sessions_total=int(one["stot"] or 0),
                bytes_in=int(one["bin"] or 0),
                bytes_out=int(one["bout"] or 0),
                errors=int(one["ereq"] or 0),
            )
            for one in csv.DictReader(text.splitlines())
        ]

    def _save_state(self, checked: frozenset[str]) -> None:
        """Keep what the checks found. A server that is not checked any more must not inherit "down": it would stay so."""
        lines: list[str] = []
        if checked:
            with contextlib.suppress(OSError):
                for line in self.ask("show servers state").splitlines():
                    words = line.split()
                    if line.startswith("#") or (len(words) > 1 and words[1] in checked):
                        lines.append(line)
        write_whole(self.state_path, _STATE_HEADER + "".join(line + "\n" for line in lines))

    def _start(self, *options: str | os.PathLike[str]) -> None:
        words = [*netns.prefix(self.namespace), "haproxy", "-D", "-q", "-L", PEER, "-f", self._config, "-p", self._pid]
        self._former.touch()
        self._starting.touch()
        run([*words, *options], timeout=30)
        self._starting.unlink()

    def _note_former(self, pid: int) -> None:
        """Remember a process that a reload leaves behind, before it is left."""
        pids = {one for one in (*self._left_behind(), pid) if self._is_ours(one)}
        write_whole(self._former, " ".join(map(str, sorted(pids))))

    def _left_behind(self) -> list[int]:
        try:
            return [int(one) for one in self._former.read_text().split()]
        except (OSError, ValueError):
            return []

    def _end_all(self) -> None:
        """End the process that serves and those before it, and wait for their end."""
        if not self._config.exists():
            return  # none was ever started
        # a start that was cut off, or an earlier version, may have left a process that no file names
        searched = self._starting.exists() or not self._former.exists()
        pids = self._processes() if searched else [*self._left_behind(), *([pid] if (pid := self.pid()) else [])]
        deadline = time.monotonic() + 5
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                try:
                    # the descriptor holds the process that it is asked about: the number cannot become another's meanwhile
                    if self._is_ours(pid):
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                        end = select.poll()
                        end.register(descriptor, select.POLLIN)
                        end.poll(max(0.0, deadline - time.monotonic()) * 1000)
                finally:
                    os.close(descriptor)
        write_whole(self._former, "")
        self._starting.unlink(missing_ok=True)

    def _is_ours(self, pid: int) -> bool:
        """Whether the process runs this configuration. A zombie runs nothing."""
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (OSError, IndexError):
            return False
        return os.fsencode(self._config) in words and state not in "ZX"

    def _processes(self) -> list[int]:
        entries = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in entries if self._is_ours(pid)]


def word(text: str) -> str:
    """A text as one word of the configuration that means exactly this text. Raises ValueError for NUL, which none can hold.

    Source: HAProxy's configuration manual, "Quoting and escaping".
    """
    if "\0" in text:
        raise ValueError("HAProxy's configuration cannot hold a NUL character")
    parts = (rf"'\x{ord(one):02x}'" if ord(one) < 32 or ord(one) == 127 else r"'\''" if one == "'" else one for one in text)
    return f"'{''.join(parts)}'"


def argument(text: str) -> str:
    """A text as one argument of a sample fetch: `word` is still to be applied to the whole expression."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def plain_format(text: str) -> str:
    """A text where HAProxy takes a log format: nothing in it is an expression."""
    return text.replace("%", "%%")


def refuses_pattern(pattern: str) -> str | None:
    """What HAProxy says against a regular expression (it has PCRE's); None when it takes it."""
    config = (
        "defaults\n    mode http\n    timeout client 1s\n    timeout connect 1s\n    timeout server 1s\n"
        f"frontend f\n    bind 127.0.0.1:1\n    acl a path -m reg -- {word(pattern)}\n    http-request deny if a\n"
    )
    done = run(["haproxy", "-c", "-f", "/dev/stdin"], stdin=config, timeout=30, check=False)
    if done.returncode == 0:
        return None
    return next((line.rpartition(" : ")[2] for line in done.stderr.splitlines() if "regex" in line), "HAProxy refuses it")


def _listening(pid: int) -> set[str]:
    """The TCP sockets (as links in /proc name them) that the process listens on, with others of its namespace."""
    found: set[str] = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A":
                    found.add(f"socket:[{words[9]}]")
    return found


def _wait_deaf(pid: int, listening: set[str], *, within: float = 2.0) -> None:
    """Return when the process has closed those sockets. Under load it still accepts some clients after the request to stop."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        held: set[str] = set()
        with contextlib.suppress(OSError):
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    held.add(os.fspath(link.readlink()))
        if not held & listening:
            return
        time.sleep(0.002)

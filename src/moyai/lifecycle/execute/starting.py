"""Sends machines what they run first, over SSH, where user data is too small for it.

Always holds: what is sent is what the digest in the machine's user data names, and only the machine can open it, because the
key is in the user data alone; sending it twice is harmless. ADR 0141 has the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from moyai.bootstrap.sent_start import START_KEY, StartVerdict, verdict_of
from moyai.cloud.model import Server
from moyai.core.errors import NotFound, Retriable, Terminal
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.lifecycle.execute.context import Context, Handler, handles
from moyai.linux.process import ProcessError, run
from moyai.plan import keys
from moyai.plan import steps as s

_PAUSE = 1.0
#: Seconds for one machine from its making until it has run its start: it boots, and its keys are drawn.
START_TIMEOUT = 900.0
_SSH_SECONDS = 120.0


class Send(Protocol):
    def __call__(self, address: str, start: str, *, told: str, folder: Path) -> str:
        """Hands the start over and returns what the machine says. ``told``: its id in the cloud and its zone. ``folder``: the
        record's. Raises Retriable while nobody answers."""
        ...


class Starting:
    """``send``: brings a start to an address."""

    def __init__(self, context: Context, *, send: Send) -> None:
        self._context, self._send_over = context, send

    def handlers(self) -> Mapping[type[s.Step], Handler]:
        return dict([handles(s.SendStart, self._send)])

    def _send(self, step: s.SendStart, progress: Progress) -> None:
        context, record = self._context, self._context.require_record()
        notes, server_id = context.machine_notes, context.id(keys.server(step.node))
        start = notes.start(step.node) if notes else ""
        if notes is None or not start:
            # an earlier run has sent it
            return

        def look() -> NotYet | None:
            try:
                server = context.cloud.machines.server(server_id)
            except NotFound:
                raise Terminal(
                    f"server {step.node} is gone before it has run its start", hint="`moyai up` makes it again"
                ) from None
            if server.power.broken:
                raise Terminal(f"server {step.node} is in {server.status}: {server.fault}")
            address = public_address(server)
            if not address:
                return NotYet("it has no public address yet")
            notes.keep_address(step.node, address)
            said = self._send_over(address, start, told=f"{server_id} {server.zone}".strip(), folder=record.folder)
            match verdict_of(said):
                case StartVerdict.STARTED:
                    return None
                case StartVerdict.OTHER:
                    hint = "delete the server in the cloud, then run `moyai up` again"
                    raise Terminal(f"server {step.node} waits for another start than the one on record", hint=hint)
                case StartVerdict.FAILED:
                    raise Terminal(f"server {step.node} did not start: {_last(said)}")
                case StartVerdict.SILENT:
                    return NotYet(_last(said) or "it says nothing")

        until(
            look,
            clock=context.clock,
            timeout=START_TIMEOUT,
            pause=_PAUSE,
            retry=Retriable,
            on_wait=progress.progress,
            late=lambda seen: Terminal(
                f"waited {START_TIMEOUT:.0f} s for server {step.node} to take its start: {seen.missing}",
                hint="does spec.access.sshCIDRs contain this machine's address? `moyai up` again goes on here",
            ),
            abort=context.abort,
        )
        notes.started(step.node)


def public_address(server: Server) -> str:
    return next((one.address for one in server.addresses if one.kind == "floating"), "")


def send_by_ssh(address: str, start: str, *, told: str, folder: Path) -> str:
    """See ``Send``. The host's key is taken as it comes: only the right machine can open the start."""
    options = ("BatchMode=yes", "IdentitiesOnly=yes", "ConnectTimeout=10", "LogLevel=ERROR")
    trust = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
    command = ["ssh", "-i", str(folder / START_KEY), *(word for one in (*options, *trust) for word in ("-o", one))]
    try:
        done = run([*command, f"root@{address}", told], stdin=start, timeout=_SSH_SECONDS, check=False)
    except ProcessError as error:
        raise Retriable(f"{address} does not take its start: {error}") from error
    if verdict_of(done.stdout) is StartVerdict.SILENT:
        raise Retriable(f"{address} does not take a login yet: {_last(done.stderr) or _last(done.stdout) or done.returncode}")
    return done.stdout


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""

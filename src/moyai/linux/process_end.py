"""Waits in an event loop for the end of a process. Another process may have started it."""

from __future__ import annotations

import asyncio
import os
import signal


async def ended(pid: int) -> str:
    """Wait until the process has ended, whichever process is its parent. Returns how it ended, as far as that can be known."""
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return _reap(pid)
    done = asyncio.Event()
    loop.add_reader(descriptor, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return _reap(pid)


def _reap(pid: int) -> str:
    try:
        _, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return "ended"  # no child of this process: its init takes it in
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

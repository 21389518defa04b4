"""Command lines of the machine's processes, for tests that look for one among them: others start and end meanwhile."""

from __future__ import annotations

from pathlib import Path

from moyai.linux import proc


def command_line(pid: int) -> list[str]:
    """Its words; none where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").removesuffix("\0").split("\0")
    except OSError:
        return []


def naming(text: str) -> list[int]:
    """Processes that have the text in their command line."""
    return [pid for pid in proc.pids() if any(text in word for word in command_line(pid))]

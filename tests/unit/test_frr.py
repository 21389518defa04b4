"""The conversation with FRR's daemons, with a server in place of a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from moyai.kube.objects.bgp import BfdProfile, BgpPeer
from moyai.kube.objects.meta import Reference
from moyai.linux import frr as talking
from moyai.linux.frr import Frr, FrrGone, FrrPlace
from moyai.plan.bgp.bgp_conf import BgpConf
from moyai.plan.bgp.router import frr_config, profile_name
from moyai.plan.bgp.sessions import PeerSession, Sessions


@asynccontextmanager
async def daemon(folder: Path, answer: Callable[[bytes], bytes]) -> AsyncGenerator[Frr]:
    """``answer``: command → text of the answer and its code."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(EOFError, ConnectionError):
            while True:
                command = (await reader.readuntil(b"\0"))[:-1]
                writer.write(answer(command))
                await writer.drain()

    async with await asyncio.start_unix_server(serve, str(folder / "bgpd.vty")):
        yield Frr(FrrPlace(root=folder, run="/"), on_start=lambda _daemon: None)


async def test_an_answer_that_is_too_long_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talking, "_LONGEST_ANSWER", 1024)
    async with daemon(tmp_path, lambda command: (b"x" * 4096 if command != b"enable" else b"") + b"\0\0\0\0") as frr:
        with pytest.raises(FrrGone, match="more than 1024 bytes"):
            await frr.show("bgpd", "show bgp json")


async def test_a_refused_password_is_not_said(tmp_path: Path) -> None:
    def answer(command: bytes) -> bytes:
        return b"% Unknown command: " + command + b"\0\0\0\2" if b"password" in command else b"\0\0\0\0"

    async with daemon(tmp_path, answer) as frr:
        (said,) = await frr.configure("bgpd", ["neighbor 10.0.0.1 password s3cret"])
    assert "s3cret" not in f"{said.command} {said.why}"


async def test_a_line_that_is_too_long_does_not_end_the_log(tmp_path: Path) -> None:
    """A pipe that nobody reads stops the daemon."""
    script = tmp_path / "zebra"
    script.write_text("#!/bin/sh\nhead -c 200000 /dev/zero | tr '\\\\0' x\necho\necho last\n")
    script.chmod(0o755)
    lines: list[str] = []
    place = FrrPlace(root=tmp_path, run="/", programs=str(tmp_path))
    with pytest.raises(FrrGone, match="ended with 0"):
        async with Frr.running(place, on_start=lambda _daemon: None, on_line=lambda _daemon, line: lines.append(line)):
            pass
    assert lines[-1] == "last"


@pytest.mark.parametrize("name", ["x" * 58, "x" * 59, "a." * 126 + "b"])
def test_a_profile_with_a_long_name_has_one_that_frr_takes(name: str) -> None:
    """After a name that FRR refuses, the lines of the profile stand elsewhere, and those of the next profiles, too."""
    now = PeerSession(BgpPeer("router", "192.0.2.1", Reference("BGPPeer", "router", "u"), my_asn=1, asn=2, bfd=name))
    found = BfdProfile(name, Reference("BFDProfile", name, "u"), multiplier=7)
    made = frr_config(
        Sessions(1, "192.0.2.9", peers=(now,)), (), address="192.0.2.9", pods="", conf=BgpConf(), profiles={name: found}
    )
    (shown,) = made.profiles.keys() - {"moyai-default"}
    assert len(shown) < 64
    assert "detect-multiplier 7" in made.profiles[shown]
    assert f"bfd profile {shown}" in made.neighbours["192.0.2.1"].session
    assert shown != profile_name(f"{name[:-1]}y")

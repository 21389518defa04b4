"""A connection to the cloud that a router has forgotten: the answer never comes, and the client must notice soon.

That is what a floating IP does to the connections of its machine: the router's address translation forgets them. A client
that writes gets an error at once. A client that waits for an answer gets nothing, ever, unless it probes the connection.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moyai.linux.process import run

CLOUD, CLIENT = "moyai-test-cloud", "moyai-test-client"
ADDRESS = "10.79.0.1"
SERVER = f"""
import pathlib, socket, sys, time
listening = socket.create_server(("{ADDRESS}", 5000))
pathlib.Path(sys.argv[1]).write_text("listens")
connection, _ = listening.accept()
connection.recv(65536)
pathlib.Path(sys.argv[1]).write_text("asked")
time.sleep(600)
"""
ASK = f"""
from moyai.cloud.openstack import ApplicationCredential, connect
from moyai.core.errors import MoyaiError
cloud = connect(credential=ApplicationCredential("http://{ADDRESS}:5000/v3", "id", "secret"))
try:
    cloud.machines.flavors()
except MoyaiError as error:
    print(type(error).__name__, error)
"""
#: A probe goes out after 5 s; without it the request's own time limit of two minutes counts.
SOON = 30.0


@pytest.fixture
def apart() -> Iterator[None]:
    try:
        for name in (CLOUD, CLIENT):
            run(["ip", "netns", "add", name])
        run(["ip", "link", "add", "veth-a", "netns", CLOUD, "type", "veth", "peer", "name", "veth-b", "netns", CLIENT])
        for name, link, address in ((CLOUD, "veth-a", ADDRESS), (CLIENT, "veth-b", "10.79.0.2")):
            run(["ip", "-n", name, "address", "add", f"{address}/24", "dev", link])
            run(["ip", "-n", name, "link", "set", link, "up"])
        yield
    finally:
        for name in (CLOUD, CLIENT):
            run(["ip", "netns", "del", name], check=False)


def test_an_answer_that_never_comes_is_noticed(apart: None, tmp_path: Path) -> None:
    told = tmp_path / "told"
    within = [["ip", "netns", "exec", name, sys.executable, "-c"] for name in (CLOUD, CLIENT)]
    with subprocess.Popen([*within[0], SERVER, str(told)]) as server:
        try:
            _until(told, "listens")
            with subprocess.Popen([*within[1], ASK], stdout=subprocess.PIPE, text=True) as asking:
                _until(told, "asked")
                began = time.monotonic()
                # as without the address translation: the packets reach a host that does not know the connection
                run(["ip", "netns", "exec", CLOUD, "nft", "-f", "-"], stdin=FORGET)
                said = asking.communicate(timeout=150)[0]
        finally:
            server.kill()
    assert said.startswith("Unreachable "), said
    assert time.monotonic() - began < SOON


def test_a_connection_that_is_never_made_is_begun_again(apart: None) -> None:
    """A router that is still being made may take the first packet in and forget it; only a new connection gets through."""
    run(["ip", "netns", "exec", CLOUD, "nft", "-f", "-"], stdin=SWALLOW)
    began = time.monotonic()
    said = run(["ip", "netns", "exec", CLIENT, sys.executable, "-c", ASK], timeout=150).stdout
    assert said.startswith("Unreachable "), said
    assert time.monotonic() - began < SOON


RULES = """table ip forget {{
  chain in {{ type filter hook input priority 0; tcp dport 5000 {}; }}
}}
"""
FORGET, SWALLOW = RULES.format("reject with tcp reset"), RULES.format("drop")


def _until(file: Path, word: str) -> None:
    end = time.monotonic() + 60
    while not (file.exists() and file.read_text() == word):
        assert time.monotonic() < end, f"not {word} within a minute"
        time.sleep(0.05)

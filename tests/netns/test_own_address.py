"""A machine gives itself its address on the private network: the program runs in a network namespace with two cards."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest


class Cards:
    """``name``: of the namespace. ``pub0`` leads to the outside, ``lan0`` is in the private network."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ip(self, *words: str) -> str:
        return subprocess.run(["ip", "-n", self.name, *words], check=True, capture_output=True, text=True).stdout

    def run(self, script: Path) -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", self.name, "/bin/sh", str(script)]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    def addresses(self, card: str) -> list[str]:
        return [line.split()[3] for line in self.ip("-4", "-o", "address", "show", "dev", card).splitlines()]


@pytest.fixture
def cards() -> Iterator[Cards]:
    made = Cards(f"own-{secrets.token_hex(3)}")
    subprocess.run(["ip", "netns", "add", made.name], check=True)
    try:
        for card, peer in (("pub0", "far0"), ("lan0", "far1")):
            made.ip("link", "add", card, "type", "veth", "peer", "name", f"veth{peer}")
            made.ip("link", "set", f"veth{peer}", "up")
        made.ip("link", "set", "pub0", "up")
        made.ip("address", "add", "100.64.0.7/18", "dev", "pub0")
        made.ip("route", "add", "default", "via", "100.64.0.1")
        yield made
    finally:
        subprocess.run(["ip", "netns", "delete", made.name], check=True)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    text = (files("moyai.bootstrap") / "data" / "own-address").read_text(encoding="utf-8")
    made = tmp_path / "own-address"
    made.write_text(text.replace("@ADDRESS@", "10.8.0.10/24"))
    return made


def test_the_card_that_does_not_lead_out_gets_the_address(cards: Cards, script: Path) -> None:
    for _ in range(2):
        done = cards.run(script)
        assert done.returncode == 0, done.stdout + done.stderr
        assert cards.addresses("lan0") == ["10.8.0.10/24"]
        assert cards.addresses("pub0") == ["100.64.0.7/18"]


def test_an_address_that_the_cloud_has_chosen_makes_way(cards: Cards, script: Path) -> None:
    cards.ip("link", "set", "lan0", "up")
    cards.ip("address", "add", "10.8.0.200/24", "dev", "lan0")
    assert cards.run(script).returncode == 0
    assert cards.addresses("lan0") == ["10.8.0.10/24"]


def test_without_a_second_card_it_says_so(cards: Cards, script: Path) -> None:
    cards.ip("link", "delete", "lan0")
    done = cards.run(script)
    assert done.returncode == 1
    assert "no card of a private network" in done.stdout

"""Commands in guides, in messages and in comments exist, with the options that they are shown with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from moyai.cli.main import cli

ROOT = Path(__file__).parents[2]
TEXTS = sorted(
    file.relative_to(ROOT).as_posix()
    for file in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "src/moyai").rglob("*.py"))
    if "proto" not in file.parts
)
#: In backticks, or at the beginning of a line of a block of code.
_SPAN = re.compile(r"`moyai ((?:[a-z-]|\n)[^`]*)`")
_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINE = re.compile(r"^ *(?:[$#] )?moyai ([^#\n]*)", re.MULTILINE)
#: Every word behind these is another program's.
OTHERS = {"kubectl", "openstack", "ssh"}
_WORD = re.compile(r"[a-z][a-z-]*")


def shown(text: str, *, page: bool) -> Iterator[list[str]]:
    """Words of each command that the text shows."""
    for found in _SPAN.finditer(text):
        yield found[1].split()
    for block in _BLOCK.finditer(text) if page else ():
        for found in _LINE.finditer(block[0]):
            yield found[1].split()


def problem(words: list[str]) -> str:
    """What of a command does not exist; empty where all does."""
    command: click.Command = cli
    context = click.Context(cli)
    rest = list(words)
    while isinstance(command, click.Group) and rest and _WORD.fullmatch(rest[0]):
        inner = command.get_command(context, rest[0])
        if inner is None:
            return f"there is no command {' '.join(words[: len(words) - len(rest) + 1])}"
        command, rest = inner, rest[1:]
        if command.name in OTHERS:
            return ""
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    given = (word.partition("=")[0] for word in _until_pipe(rest) if word.startswith("--") and len(word) > 2)
    return next((f"{' '.join(words)}: there is no option {one}" for one in given if one not in known), "")


def _until_pipe(words: list[str]) -> Iterator[str]:
    for word in words:
        if word in ("|", "&&", ";", ">", "…"):
            return
        yield word.rstrip(",.;)")


def test_what_a_text_shows_can_be_typed() -> None:
    found: dict[str, list[str]] = {}
    for name in TEXTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        found[name] = [wrong for words in shown(text, page=name.endswith(".md")) if (wrong := problem(words))]
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("net check demo", ""),
        ("cloud nifcloud order X --lost", ""),
        ("kubectl get pods --anything", ""),
        ("net repair", "there is no command net repair"),
        ("up --fast", "up --fast: there is no option --fast"),
    ],
)
def test_the_rule_sees_each_form(words: str, wrong: str) -> None:
    assert problem(words.split()) == wrong

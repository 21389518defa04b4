"""Whatever others have named, nothing that a terminal obeys reaches it."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from moyai.cli import display, main
from moyai.cli.tables import lines
from moyai.cli.terminal import say, say_lines
from moyai.core.printable import printable
from moyai.core.progress import Event, Reporter
from tests.fakes.clock import FakeClock
from tests.syntax import nodes_of

ROOT = Path(__file__).parents[2]
#: Clears the screen, sets the title, turns the direction of writing, rings, is half of a character.
HOSTILE = "\x1b[2J\x1b]0;x\x07\u202e\u2066\x9b1m\udc80[/red]"
SHOWN = r"\x1b[2J\x1b]0;x\x07\u202e\u2066\x9b1m\udc80[/red]"


def test_control_characters_are_shown_by_their_number() -> None:
    assert printable(HOSTILE) == SHOWN
    assert printable("naïve – 世界 😀 [x]") == "naïve – 世界 😀 [x]"
    assert (printable("a\nb\tc"), printable("a\nb\tc", keep="\n")) == (r"a\nb\tc", "a\nb\\tc")


@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_nothing_printable_is_obeyed_by_a_terminal(text: str) -> None:
    assert not [one for one in printable(text) if ord(one) < 32 or 127 <= ord(one) < 160 or 0xD800 <= ord(one) < 0xE000]


@pytest.mark.parametrize("err", [False, True])
def test_output_of_commands(capfd: pytest.CaptureFixture[str], err: bool) -> None:
    say(HOSTILE, err=err)
    assert capfd.readouterr()[err] == SHOWN + "\n"


def test_a_line_stays_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    say_lines([f"note: {HOSTILE}\n 1  create network"])
    assert capfd.readouterr().out == f"note: {SHOWN}\\n 1  create network\n"


def test_cells_of_tables() -> None:
    assert lines(("NAME", "ID"), [("\x1b[2J", "1"), ("a\nb", "2")]) == ["NAME     ID", r"\x1b[2J  1", r"a\nb     2"]


def test_errors_and_arguments(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text('{"\\e[2J": 1}')
    assert main.run(["plan", str(file)]) == 2
    assert main.run(["plan", str(tmp_path / "\x1b[2J")]) == 2
    assert main.run(["\x1b[2J"]) == 2
    assert "\x1b" not in capfd.readouterr().err


@pytest.mark.parametrize("live", [True, False])
def test_progress(live: bool) -> None:
    out = io.StringIO()
    clock = FakeClock()
    if live:
        console = Console(file=out, width=200, force_terminal=False)
        shown = display.LiveDisplay(HOSTILE, console, clock=clock)
        handle = shown.handle
    else:
        shown, console, handle = None, None, display.PlainDisplay(out, clock).handle
    handle(Event("started", f"step {HOSTILE}", HOSTILE))
    handle(Event("note", "", f"note {HOSTILE}"))
    with pytest.raises(ValueError, match="x"), Reporter(handle, clock=clock).step("x"):
        raise ValueError(f"x {HOSTILE}")
    if shown and console:
        console.print(shown.render())
    text = out.getvalue()
    assert SHOWN in text
    assert f"note {SHOWN}" in text
    assert not [one for one in text if one in "\x1b\x07\x9b\u202e\u2066\udc80"]


def test_commands_print_by_one_module_only() -> None:
    found = [
        f"{file.name}:{node.lineno}"
        for file in (ROOT / "src/moyai/cli").glob("*.py")
        if file.name != "terminal.py"
        for node in nodes_of(file)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in {("click", "echo"), ("click", "secho")}
    ]
    assert found == [], "print by moyai.cli.terminal"

"""The one kind of table that users see."""

from __future__ import annotations

import pytest

from moyai.cli.tables import lines


def test_columns_are_as_wide_as_their_widest_cell_and_lines_end_without_spaces() -> None:
    assert lines(("NAME", "STATE"), [("a-long-name", "ready"), ("b", "")]) == [
        "NAME         STATE",
        "a-long-name  ready",
        "b",
    ]


def test_numbers_are_aligned_to_the_right() -> None:
    assert lines(("NAME", "MB", "END"), [("a", "1204", "x"), ("b", "7", "")], right={"MB"}) == [
        "NAME    MB  END",
        "a     1204  x",
        "b        7",
    ]


def test_without_rows_there_is_the_head() -> None:
    assert lines(("NAME", "STATE"), []) == ["NAME  STATE"]


def test_a_row_with_a_cell_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        lines(("NAME", "STATE"), [("a",)])

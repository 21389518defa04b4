"""YAML of others: values as Kubernetes reads them, and no text that costs more than its length."""

from __future__ import annotations

import ast
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moyai.core import yamltext
from moyai.core.yamlread import Limits, YamlError, read, read_one
from tests.syntax import nodes_of

ROOT = Path(__file__).parents[2]
STRICT = Limits(values=10_000, depth=20, strict=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("Off", False),
        ("y", "y"),
        ("1:30", "1:30"),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0o17", 15),
        ("-0b11", -3),
        ("+5", 5),
        ("0", 0),
        ("1e3", "1e3"),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("1.37.1", "1.37.1"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001-01-01", "2001-01-01"),
        ("!!timestamp 2001-99-99", "2001-99-99"),
        ("!!str 5", "5"),
        ("! 5", "5"),
        ("'010'", "010"),
        ("!!float 3", 3.0),
        ("~", None),
        ("1e999", "1e999"),
        ("18446744073709551615", 2**64 - 1),
        ("{<<: {a: 1, b: 1}, a: 2}", {"a": 2, "b": 1}),
        ("[&x {a: 1}, {<<: [*x, {c: 3}], b: 2}]", [{"a": 1}, {"a": 1, "b": 2, "c": 3}]),
        ("[&x 1, *x]", [1, 1]),
    ],
)
def test_values_mean_what_they_mean_to_kubernetes(text: str, value: object) -> None:
    found = read_one(text, STRICT)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 010", ":1:4 010 begins with 0 and can be read to base 8 or 10, should be without the 0, or text in quotes"),
        ("a: -08", ":1:4 -08 begins with 0 and can be read to base 8 or 10, should be without the 0, or text in quotes"),
        ("a: .nan", ":1:4 .nan, should be a number, or text in quotes"),
        ("a: -.inf", ":1:4 -.inf, should be a number, or text in quotes"),
        ("!!bool zz", ":1:1 zz with tag !!bool, should be without the tag"),
        ("!!int 1.5", ":1:1 1.5 with tag !!int, should be without the tag"),
        ("!!set {a}", ":1:1 tag !!set, should be left out"),
        ("!!python/object/apply:os.system [x]", ":1:1 tag !!python/object/apply:os.system, should be left out"),
        ("18446744073709551616", ":1:1 18446744073709551616 is a number of more than 64 bits, should be smaller"),
        ("0x" + "f" * 6000, ":1:1 0xffffffffffffffffffffffffffffffffffffff… is a number of more than 64 bits"),
        ("9" * 6000, ":1:1 9999999999999999999999999999999999999999… is a number of more than 64 bits"),
        ("a: 1\nb: 2\na: 3", ":3:1 'a' stands twice"),
        ("{? [a] : b}", ":1:4 a key that is a list or a mapping, should be text"),
        ("<<: 5", ":1:1 the value of << should be a mapping, or a list of mappings"),
        ("*a", ":1:1 alias 'a' stands for nothing that was read before"),
        ("- &a x\n---\n*a", ":3:1 alias 'a' stands for nothing that was read before"),
        ("a: &a [*a]", ":1:8 alias 'a' within the value that it stands for"),
        ("[" * 30, ":1:21 nested more than 20 deep"),
        ("a: &a " + "[" * 15 + "]" * 15 + "\nb: " + "[" * 10 + "*a", ":2:14 nested more than 20 deep"),
        ("\x07", " not valid YAML: control characters are not allowed"),
        ("a: [", ":2:1 not valid YAML: did not find expected node content"),
        ("%FOO\n" * 200 + "---\n", " more than 100 directives (lines that begin with %)"),
    ],
)
def test_a_problem_is_one_line_with_its_place(text: str, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        read(text, STRICT)
    assert f"{caught.value.where} {caught.value}".startswith(message)


@pytest.mark.parametrize(
    ("text", "value"),
    [("{a: 1, a: 2}", {"a": 2}), ("010", "010"), (".nan", ".nan"), ("!!bool zz", "zz"), ("!x {a: !y b}", {"a": "b"})],
)
def test_files_that_others_judge_are_read_leniently(text: str, value: object) -> None:
    assert read_one(text) == value


def _bomb(first: str, step: str) -> str:
    """Twelve levels, each ten times the one before. ``step``: of a level, given the alias ten times."""
    letters = "abcdefghijklm"
    lines = [f"a: &a {first}"]
    lines += [f"{new}: &{new} " + step.replace("@", ", ".join([f"*{old}"] * 10)) for old, new in pairwise(letters)]
    return "\n".join(lines)


def _problem(text: str, limits: Limits) -> str:
    try:
        read(text, limits)
    except YamlError as error:
        return str(error)
    return ""


SIZE = 1 << 20
HEAVY = {
    "aliases in lists": _bomb("[x, x, x]", "[@]"),
    "aliases in mappings": _bomb("{x: 1}", "{x: [@], y: [@]}"),
    "merged mappings": _bomb("{x: 1, y: 2}", "{<<: [@]}"),
    "aliases as keys": _bomb("[x]", "{[@]: 1}"),
    "many values": "[" + "a," * (SIZE // 2),
    "many keys": "".join(f"k{number}: 1\n" for number in range(80_000)),
    "many anchors": "".join(f"- &a{number} x\n" for number in range(SIZE // 12)),
    "deep lists": "[" * SIZE,
    "deep mappings": "{a: " * (SIZE // 4),
    "deep blocks": "- " * (SIZE // 2),
    "many directives": "".join(f"%TAG !{number}! x\n" for number in range(SIZE // 14)) + "--- a",
    "one long string": '"' + "a" * SIZE,
    "one long number": "9" * SIZE,
    "white space": " " * SIZE + "a",
    "comments": "#\n" * (SIZE // 2),
    "colons": ":" * SIZE,
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("limits", [STRICT, Limits()], ids=["strict", "lenient"])
@pytest.mark.parametrize("kind", HEAVY)
def test_no_text_costs_more_than_its_length(kind: str, limits: Limits) -> None:
    start = time.process_time()
    assert "\n" not in _problem(HEAVY[kind], limits)
    # some 2 s on the slowest machine that tests run on; what is quadratic takes minutes
    assert time.process_time() - start < 8


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=12)
#: What some reader of YAML takes for something else than text.
TRAPS = ("y", "N", "yes", "on", "1e3", "08", "010", "0o17", "1_000", "0x1F", "1:30", ".5", "2.", "~", "null", "=", "<<", ".nan")
TRAPS_IN_WORDS = TEXTS | st.sampled_from([*TRAPS, "2001-01-01", "+5", "-", "", "1.e3"])


@given(
    st.recursive(
        SCALARS | TRAPS_IN_WORDS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TRAPS_IN_WORDS, inner, max_size=4),
        max_leaves=20,
    )
)
def test_what_is_written_is_read_again_the_same(value: Any) -> None:
    text = yamltext.dump(value)
    assert read_one(text, Limits(strict=True)) == value
    assert yaml.safe_load(text) == value


@pytest.mark.parametrize("text", TRAPS)
def test_text_is_written_so_that_no_reader_takes_it_for_a_number_or_a_truth_value(text: str) -> None:
    assert yamltext.dump({"k": text}) == f"k: '{text}'\n"


def test_numbers_and_truth_values_are_written_plainly() -> None:
    assert yamltext.dump([1, -5, 1.5, True, None]) == "- 1\n- -5\n- 1.5\n- true\n- null\n"


@given(st.text(max_size=80) | st.text("[]{}:,&*!|>-? \n'\"%#@`ab01<.~", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert _problem(text, STRICT).isprintable()


def test_yaml_is_read_in_one_place_only() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in (ROOT / "src/moyai").rglob("*.py")
        for node in nodes_of(file)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "yaml"
        if "load" in node.attr or node.attr in {"parse", "compose", "scan"}
    ]
    # a node has no moyai: its programs read kubeadm's own files with PyYAML
    allowed = ("src/moyai/core/yamlread.py", "src/moyai/bootstrap/data/")
    assert [where for where in found if not where.startswith(allowed)] == []

"""Specs from parts: merged as Spruce merges them, with messages that name the file of a value."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from moyai.core.errors import UsageError
from moyai.core.yamlread import read
from moyai.spec.load import load
from moyai.spec.merging import merge
from moyai.spec.operators import evaluate
from moyai.spec.tree import tree_of
from tests.unit.spruce_cases import MERGED, REFUSED


def merged(*parts: str) -> Any:
    return merge([tree_of(next(iter(read(text))), f"{number}.yaml") for number, text in enumerate(parts)]).plain()


@pytest.mark.parametrize(("parts", "result"), [case[1:] for case in MERGED], ids=[case[0] for case in MERGED])
def test_what_spruce_merges_is_merged_so(parts: list[str], result: Any) -> None:
    assert merged(*parts) == result


@pytest.mark.parametrize("parts", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_spruce_refuses_is_refused_in_one_line_that_names_a_file(parts: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^\d\.yaml: ") as refused:
        merged(*parts)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        (["l: [1]", "l: [5, '(( append ))', 2]"], "1.yaml: l: 1 items stand before the first operator"),
        (["a: (( static_ips 0 1 ))"], "0.yaml: a: '(( static_ips 0 1 ))', should be grab, concat, join, param, empty or prune"),
        (['a: {b: (( vault "secret" ))}'], "0.yaml: a.b: '(( vault \"secret\" ))', should be grab"),
        (['a: (( param "name the flavor" ))', "b: 1"], "0.yaml: a: name the flavor (( param )): no later file gives it"),
        (["l: [{n: (( grab x.y ))}]"], "0.yaml: l[0].n: '(( grab x.y ))', there is no x.y"),
        (["a: (( grab b ))\nb: (( grab a ))"], "0.yaml: a: needs itself: a → b → a"),
        (["a: (( grab || b ))"], "0.yaml: a: '(( grab || b ))', || should stand between two arguments"),
        (["a: (( grab b || ))\nb: 1"], "|| should stand between two arguments"),
        (["a: (( concat ))"], "should have an argument behind concat"),
        (["a: (( empty house ))"], "should be one of hash, map, array, list, string behind empty"),
        (["l: [1]", "l: ['(( insert somewhere ))', 2]"], "1.yaml: l: (( insert somewhere )), should be (( insert before|after"),
        (["l: [1]", "l: ['(( delete 4 ))']"], "1.yaml: l: (( delete 4 )), and the list has 1 items"),
        (["l: [1]", "l: ['(( delete 0 ))', 3]"], "items stand behind (( delete ))"),
        (["l: [1]", "l: ['(( append on x ))', 3]"], "(( append on x )), should be (( append ))"),
    ],
)
def test_what_cannot_be_done_is_one_line(parts: list[str], line: str) -> None:
    with pytest.raises(UsageError) as refused:
        merged(*parts)
    assert line in str(refused.value)


def test_values_of_the_environment_are_taken() -> None:
    tree = tree_of({"a": "(( grab $REGION ))", "b": '(( grab $NOTHING || "else" ))'}, "f")
    assert evaluate(tree, {"REGION": "east", "NOTHING": ""}).plain() == {"a": "east", "b": "else"}


@pytest.mark.parametrize("level", ["(( grab l{0} l{0} ))", "{{a: (( grab l{0} )), b: (( grab l{0} ))}}"])
def test_values_made_of_each_other_do_not_grow_without_end(level: str) -> None:
    levels = "\n".join(f"l{number}: {level.format(number + 1)}" for number in range(40))
    with pytest.raises(UsageError, match=r"has more than 100,000 values"):
        merged(f"{levels}\nl40: [1, 2]")


NAMED = "l: [" + ",".join(f"{{name: a{number}}}" for number in range(5000)) + "]"
INSERTS = "l: [" + ",".join(f"'(( insert after 0 ))',{{name: b{number}}}" for number in range(5000)) + "]"
CHAIN = "\n".join(f"a{number}: (( grab a{number + 1} ))" for number in range(5000))
NEST = "a0: 1\n" + "\n".join(f"a{number + 1}: {{x: (( grab a{number} ))}}" for number in range(400))
PATHS = f"l: {list(range(10_000))}\n" + "\n".join(f"a{number}: (( grab l.{number} ))" for number in range(5000))
TEXTS = "\n".join(f"a{number}: (( concat a{number + 1} a{number + 1} ))" for number in range(60)) + "\na60: " + "x" * 30
LISTS = f"m: (( prune ))\nl: {list(range(10_000))}\n" + "\n".join(f"a{number}: (( grab l l ))" for number in range(5000))
BLANKS = " " * 100_000


@pytest.mark.parametrize(
    "parts",
    [
        [NAMED, NAMED.replace("name: a", "name: b")],
        [NAMED, INSERTS],
        ["l: [0]", "l: [" + "'(( append ))',1," * 20_000 + "]"],
        [CHAIN],
        ["\n".join(f"a{number}: (( grab a{(number + 1) % 150} ))" for number in range(150))],
        [NEST],
        [PATHS],
        [TEXTS],
        [TEXTS.replace("concat", 'join "," ')],
        [LISTS],
        [f"a: '(( grab{BLANKS}x'"],
        [f"l: ['(( append{BLANKS}))x', '(( insert{BLANKS}x']"],
        [f"l: ['(( insert before{BLANKS}))', '(( merge on{BLANKS}x y ))']"],
        ["a: (( grab " + "9" * 6000 + " ))"],
        ["l: [1]", "l: ['(( delete " + "9" * 6000 + " ))']"],
        ["l: [1]", "l: ['(( delete " + "x" * 100_000 + " ))']"],
        ["l: [{name: " + "y" * 100_000 + "}]", "l: ['(( insert after 0 ))', {name: " + "y" * 100_000 + "}]"],
        ["a: '(( nosuch " + "x" * 100_000 + " ))'"],
        ["a: '(( param " + "x" * 100_000 + " ))'"],
        ["l: [{name: [1]}, {name: {a: b}}]", "l: ['(( insert after 0 ))', {name: [1]}, '(( merge ))', {name: {a: b}}]"],
        ["1.5: (( grab x ))"],
        ["~: {a: (( param ))}"],
        ["true: (( grab x ))"],
    ],
    ids=lambda parts: " | ".join(part[:30] for part in parts),
)
def test_hostile_parts_are_merged_or_refused_in_one_short_line_and_soon(parts: list[str]) -> None:
    start, line = time.process_time(), ""
    try:
        merged(*parts)
    except UsageError as error:
        line = str(error)
    assert line.isprintable()
    assert len(line) < 700
    # what is quadratic takes minutes
    assert time.process_time() - start < 8


def test_files_are_read_no_further_than_they_can_be_merged(tmp_path: Path) -> None:
    many = files(tmp_path, many="l: [" + "1," * 40_000 + "]")
    with pytest.raises(UsageError, match=r"many\.yaml: with this file there are more than 100,000 values"):
        load(*many * 200)


BASE = """
metadata: {name: demo}
meta: {flavor: m1.small, zones: [az1, az2]}
spec:
  controlPlane: {flavor: (( grab meta.flavor ))}
  nodePools:
  - {name: workers, replicas: 2, zones: (( grab meta.zones ))}
"""
PRODUCTION = """
meta: (( prune ))
spec:
  nodePools:
  - {name: workers, replicas: 5}
  - {name: gpu, replicas: 1}
"""


def files(folder: Path, **texts: str) -> list[Path]:
    made = [folder / f"{name}.yaml" for name in texts]
    for file, text in zip(made, texts.values(), strict=True):
        file.write_text(text)
    return made


def test_a_spec_is_loaded_from_its_parts(tmp_path: Path) -> None:
    spec = load(*files(tmp_path, base=BASE, production=PRODUCTION)).cluster.spec
    assert [(pool.name, pool.replicas) for pool in spec.node_pools] == [("workers", 5), ("gpu", 1)]
    assert spec.control_plane.flavor == "m1.small"
    assert list(spec.node_pools[0].zones) == ["az1", "az2"]


@pytest.mark.parametrize(
    ("second", "line"),
    [
        (
            "meta: (( prune ))\nspec: {nodePools: [{name: workers, replicas: -1}]}",
            "second.yaml: spec.nodePools[0].replicas: -1",
        ),
        ("meta: (( prune ))\nspec: {nodePools: [{name: workers, flavour: big}]}", "second.yaml: spec.nodePools[0].flavour"),
        ("meta: {more: 1}", "second.yaml: meta: unknown field"),
        ("meta: (( prune ))\nspec: [", "second.yaml:"),
        ("- 1", "second.yaml: a list, should be a mapping"),
    ],
)
def test_a_message_names_the_file_that_the_value_came_from(second: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        load(*files(tmp_path, first=BASE, second=second))
    assert str(refused.value).startswith(line)


def test_a_fault_of_the_first_file_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^first.yaml: spec.cloud: "):
        load(*files(tmp_path, first="spec: {cloud: 5}", second="spec: {nodePools: []}"))


def test_the_merged_spec_is_printed_and_can_be_read_again(tmp_path: Path) -> None:
    parts = files(tmp_path, base=BASE, production=PRODUCTION)
    program = [sys.executable, "-c", "from moyai.cli.main import main; main()", "spec", "merge"]
    done = subprocess.run([*program, *map(str, parts)], capture_output=True, text=True, check=True)
    printed = yaml.safe_load(done.stdout)
    assert "meta" not in printed
    (whole,) = files(tmp_path, whole=done.stdout)
    assert load(whole).cluster == load(*parts).cluster


def test_standard_input_is_one_part() -> None:
    with pytest.raises(UsageError, match="standard input is named twice"):
        load(Path("-"), Path("-"))

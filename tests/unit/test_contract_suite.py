"""The contract suite calls every method of every protocol that an adapter implements.

A call that only shows what an absent capability raises (``suite/absences.py``) does not count.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

from moyai.cloud.capabilities import Cloud
from moyai.cloud.own_machine import Guest
from tests.contract import bare_suite, suite

#: Attribute of ``Cloud``, or ``guest`` → the protocol that it has.
PROTOCOLS: dict[str, type] = {"guest": Guest} | {
    name: get_type_hints(value.fget)["return"]
    for name, value in vars(Cloud).items()
    if isinstance(value, property) and value.fget and name not in ("kind", "name")
}


def methods(protocol: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(protocol, inspect.isfunction) if not name.startswith("_")}


def part(node: ast.expr) -> str:
    """``machines`` of ``site.cloud.machines``, ``guest`` of ``machine.guest()``; empty: of no protocol."""
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) and node.attr in PROTOCOLS else ""


def assigned(node: ast.Assign) -> Iterator[tuple[str, str]]:
    """Name → part, of ``compute = site.cloud.machines`` and of ``compute, disks = …``."""
    target = node.targets[0]
    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
        pairs = list(zip(target.elts, node.value.elts, strict=True))
    else:
        pairs = [(target, node.value)]
    for name, value in pairs:
        if isinstance(name, ast.Name) and part(value):
            yield name.id, part(value)


def called() -> set[str]:
    """``machines.attach_volume`` and so on, of every method that the suite takes from a protocol's object."""
    found: set[str] = set()
    for file in (*Path(str(suite.__file__)).parent.glob("*.py"), Path(str(bare_suite.__file__))):
        if file.stem == "absences":
            continue
        for function in ast.walk(ast.parse(file.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            nodes = list(ast.walk(function))
            names = {name: one for node in nodes if isinstance(node, ast.Assign) for name, one in assigned(node)}
            for node in nodes:
                if isinstance(node, ast.Attribute):
                    owner = names.get(node.value.id, "") if isinstance(node.value, ast.Name) else part(node.value)
                    found.add(f"{owner}.{node.attr}")
    return found


def test_every_method_of_every_protocol_is_called_in_the_suite() -> None:
    assert len(PROTOCOLS) > 12
    demanded = {f"{name}.{method}" for name, protocol in PROTOCOLS.items() for method in methods(protocol)}
    assert sorted(demanded - called()) == []

"""Syntax trees of the project's own files, for the tests of rules: a file is parsed once for all of them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path


@cache
def tree_of(file: Path) -> ast.Module:
    """Nobody changes the tree."""
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def nodes_of(file: Path) -> tuple[ast.AST, ...]:
    """All nodes of the file, in the order of ``ast.walk``."""
    return tuple(ast.walk(tree_of(file)))

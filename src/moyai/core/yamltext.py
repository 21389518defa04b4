"""YAML as text, written by libyaml where PyYAML has it: the add-ons of a cluster take a tenth of the time that Python takes.

Always holds: text stays text for every reader, of YAML 1.1 and 1.2, in Python and in Go: what any of them would take for a
number or a truth value is written in quotes.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_FASTEST: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_FASTEST):
    pass


# PyYAML writes without quotes what it would itself read as text; kubeadm and kubectl take these for truth values and numbers
for _tag, _pattern, _first in (
    ("bool", r"[yYnN]", "yYnN"),
    ("float", r"[-+]?[0-9_]*\.?[0-9_]*([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("int", r"[-+]?0[oO][0-7_]+", "-+0"),
):
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))


def dump(*documents: object) -> str:
    """The documents one behind the other, their keys in the order given."""
    return str(yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False))

"""docs/reference/spec.md, written from the models: every field with its type, default and meaning.

``python -m moyai.spec.doc FILE`` writes it; a test holds the file against the code.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import UnionType
from typing import Any, Literal, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from moyai.spec.load import dump
from moyai.spec.model import Cluster

_HEAD = """\
<!-- Written by `python -m moyai.spec.doc`; edit the descriptions in src/moyai/spec. -->

# The cluster spec

`moyai up SPEC` reads a YAML file, standard input (`-`), or a folder with `cluster.yaml` (and manifests that are applied when
the cluster is up). Every field has a default, so an empty spec is a whole cluster; a field that is not in these tables is
refused. A wrong value is one line on standard error, exit code 2, and nothing is changed:

    cluster.yaml: spec.nodePools[0].replicas: -1, should be at least 0

What may change while the cluster exists: `nodePools`, `image`, the number, zones and flavor of control planes, `access`,
`volumes.reclaimPolicy`, `network.maxRoutes`, `network.policy`, `network.bgp`, `networks`, `machines`, and of `security` what
kubelets have (`seccompDefault`, `podPidsLimit`, `protectKernelDefaults`, `evictionHard`, `imageGCHighThresholdPercent`). `moyai
net migrate` changes `network.mode`. Image, flavors, zones, labels, taints and what kubelets have belong to a machine from its
start: `up` replaces machines that were made with something else, as
[Change the machines of a cluster](../how-to/upgrade.md) describes. Everything else is built into addresses, certificates and
nodes, and a changed value is refused.

A spec is one YAML document of at most 1 MiB, 100,000 values and 20 levels. An alias (`*name`) counts as often as it is used.
Values mean what they mean in Kubernetes manifests: `yes` is true, `1:30` and `2001-01-01` are text. A key that stands twice is
refused, and so is a number that begins with 0: readers of YAML disagree about the value of `010`.

`up` refuses, before it makes anything, what the cloud cannot carry: names that the cloud does not have, ranges that the cloud
itself uses, more than its quotas allow, and labels and taints that do not fit into the user data of a server (65,535 bytes,
encoded; some 300 long labels fit).
"""


def render() -> str:
    """The page as Markdown."""
    parts = [_HEAD]
    seen: list[type[BaseModel]] = []
    queue: list[tuple[str, type[BaseModel]]] = [("", Cluster)]
    defaults: dict[str, Any] = dump(Cluster())
    while queue:
        path, model = queue.pop(0)
        if model in seen:
            continue
        seen.append(model)
        title = path or "The file"
        intro = " ".join((model.__doc__ or "").split())
        parts.append(f"## {f'`{title}`' if path else title}\n\n{intro}\n")
        rows = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
        for name, field in model.model_fields.items():
            alias = field.alias or name
            where = f"{path}.{alias}" if path else alias
            default = _default(field, where, defaults=defaults)
            rows.append(f"| `{alias}` | {_type(field.annotation)} | {default} | {field.description or ''} |")
            inner, is_list = _model(field.annotation)
            if inner is not None:
                queue.append((where + ("[]" if is_list else ""), inner))
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _model(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for inner in get_args(annotation):
        found, _ = _model(inner)
        if found is not None:
            return found, get_origin(annotation) is list
    return None, False


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if origin is list:
        return f"list of {_plural(_type(get_args(annotation)[0]))}"
    if origin is dict:
        return "mapping of text to text"
    if origin is not None and origin is not UnionType:
        return _type(get_args(annotation)[0])
    names = {"str": "text", "int": "number", "bool": "true or false", "IPv4Network": "range", "IPv4Address": "address"}
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, "mapping")


def _plural(word: str) -> str:
    return {"range": "ranges", "address": "addresses", "mapping": "mappings", "text": "texts"}.get(word, word)


def _default(field: FieldInfo, where: str, *, defaults: dict[str, Any]) -> str:
    if field.is_required():
        return "(required)"
    value: Any = defaults
    try:
        for part in where.split("."):
            value = value[part]
    except KeyError:  # in a list, or below a field without a default of its own
        value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, dict) and value:
        pairs = cast("dict[str, Any]", value).items()
        return "see below" if _model(field.annotation)[0] else ", ".join(f"`{name}: {item}`" for name, item in pairs)
    if isinstance(value, list) and value:
        return (
            ", ".join(f"`{item}`" for item in cast("list[Any]", value))
            if not isinstance(value[0], dict)
            else "one with all defaults"
        )
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value not in ("", [], {}, None) else "empty"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")

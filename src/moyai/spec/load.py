"""From a file (or a folder, or nothing) to a validated ``Cluster``, with every error as one clear line.

Always holds: whatever the input, either a ``Cluster`` comes back or a UsageError of the form
``FILE: PATH: VALUE, should be WHAT``, in time that grows with the length of the input; nothing is changed anywhere. A key that
stands twice is an error rather than a silent choice.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from moyai.core.errors import UsageError
from moyai.core.printable import printable
from moyai.core.reading import STANDARD_INPUT, read_text
from moyai.core.yamlread import Limits, YamlError, read
from moyai.spec import control_plane
from moyai.spec.model import Cluster
from moyai.spec.object_names import RECORDED
from moyai.spec.pod_network import enforced
from moyai.spec.security import kept

SPEC_FILE = "cluster.yaml"
MAX_SIZE = 1 << 20
#: A spec is five deep, and one of 500 pools with 20 labels each has 25,000 values.
LIMITS = Limits(values=100_000, depth=20, strict=True)


@dataclass(frozen=True)
class LoadedSpec:
    """``source``: the file, None for the default spec. ``manifests``: Kubernetes manifests found beside it (folders only)."""

    cluster: Cluster
    source: Path | None = None
    manifests: tuple[Path, ...] = ()


def load(path: Path | None) -> LoadedSpec:
    """The spec at ``path``: a file, ``-`` for standard input, or a folder with ``cluster.yaml`` and manifests.

    None: the default spec.
    """
    if path is None:
        return LoadedSpec(Cluster())
    manifests: tuple[Path, ...] = ()
    file = path
    try:
        if path.is_dir():
            file = path / SPEC_FILE
            found = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file())
            manifests = tuple(p for p in found if p.name != SPEC_FILE)
            if not file.exists():
                raise UsageError(f"{path}: no {SPEC_FILE} in this folder")
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from None
    text = read_text(file, limit=MAX_SIZE, should="a cluster spec")
    source = "standard input" if file == STANDARD_INPUT else file.name if file.is_file() else str(file)
    return LoadedSpec(parse(text, source=source), file, manifests)


def parse(text: str, *, source: str = SPEC_FILE) -> Cluster:
    """The spec in ``text``; ``source`` is how errors call it."""
    try:
        documents = [document for document in read(text, LIMITS) if document is not None]
    except YamlError as error:
        raise UsageError(f"{source}{error.where}: {error.problem}") from None
    if len(documents) > 1:
        raise UsageError(f"{source}: {len(documents)} documents, should be one")
    return validate(documents[0] if documents else {}, source=source)


def validate(document: object, *, source: str, recorded: bool = False) -> Cluster:
    """The spec in a document already read.

    ``recorded``: a cluster was made from it, so that it need not keep rules that are younger than the cluster.
    """
    if not isinstance(document, dict):
        raise UsageError(f"{source}: {_show(document)}, should be a mapping with apiVersion, kind, metadata and spec")
    try:
        return Cluster.model_validate(_without_none(cast("dict[Any, Any]", document)), context={RECORDED: recorded})
    except RecursionError:
        raise UsageError(f"{source}: nested more than {LIMITS.depth} deep") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"{source}: {_line(first, cast('dict[Any, Any]', document))}") from None


def _without_none(value: Any) -> Any:
    """``spec:`` with nothing behind it means "the default", as it does in Kubernetes; so does an explicit null."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in cast("dict[Any, Any]", value).items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in cast("list[Any]", value)]
    return value


def _line(error: ErrorDetails, document: dict[Any, Any]) -> str:
    context = error.get("ctx") or {}
    location = (*error["loc"], *cast("Sequence[str | int]", context.get("at", ())))
    location = tuple(part for part in location if part != "[key]")
    where = _where(location)
    found = _lookup(document, location, otherwise=error["input"])
    kind = error["type"]
    if kind == "extra_forbidden":
        return f"{where}: unknown field{_suggest(location)}"
    if kind == "missing":
        return f"{where}: missing, should be there"
    if kind == "invalid_key":
        return f"{where}: not text, should be a field's name"
    should = str(context.get("should") or _SHOULD.get(kind, error["msg"]).format(**context))
    return f"{where}: {found}, should be {should}"


#: pydantic's error type → what the value should be, with the error's context filled in.
_SHOULD = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text, in quotes",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping of names to text",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
}


def _where(location: Sequence[str | int]) -> str:
    text = ""
    for part in location:
        name = part if isinstance(part, int) else printable(part)
        text += f"[{name}]" if isinstance(part, int) else f".{name}" if text else str(name)
    return _short(text, 200) or "the file"


def _lookup(document: Any, location: Sequence[str | int], *, otherwise: Any) -> str:
    value = document
    for part in location:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return "left out" if isinstance(otherwise, dict | BaseModel) else _show(otherwise)
    return _show(value)


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if value is None:
        return "empty"
    return _short(repr(value) if isinstance(value, str) else str(value))


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}…"


def _suggest(location: Sequence[str | int]) -> str:
    model: type[BaseModel] = Cluster
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        inner = _field_model(model, part)
        if inner is None:
            return ""
        model = inner
    names = [field.alias or name for name, field in model.model_fields.items()]
    close = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.6)
    # a wrong case is the commonest slip, and difflib counts it as quite different
    same = [
        name for name in names if name.lower().replace("_", "") == str(location[-1]).lower().replace("_", "").replace("-", "")
    ]
    best = (same or close or [None])[0]
    return f", should be {best}?" if best else f", should be one of {', '.join(names)}"


def _field_model(model: type[BaseModel], alias: str) -> type[BaseModel] | None:
    for name, field in model.model_fields.items():
        if alias in (field.alias, name):
            candidates = [field.annotation, *cast("tuple[Any, ...]", getattr(field.annotation, "__args__", ()))]
            for candidate in candidates:
                if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                    return candidate
    return None


def carried_on(cluster: Cluster, before: Mapping[str, Any]) -> Cluster:
    """The spec of a cluster that exists: what it leaves out of ``security``, ``network.policy`` and ``kubernetesVersion``, and
    what it leaves to moyai (``network.mode``, ``controlPlane.endpoint``), is as in ``before``, the dumped spec that the cluster
    has."""
    security = kept(cluster.spec.security, before["spec"].get("security", {}))
    network = cluster.spec.network
    had = before["spec"]["network"]
    if network.mode == "auto":
        network = network.model_copy(update={"mode": had["mode"]})
    if "policy" not in network.model_fields_set:
        network = network.model_copy(update={"policy": enforced(had)})
    plane = control_plane.kept(cluster.spec.control_plane, before["spec"].get("controlPlane", {}))
    changed: dict[str, Any] = {"security": security, "network": network, "control_plane": plane}
    if "kubernetes_version" not in cluster.spec.model_fields_set:
        changed["kubernetes_version"] = before["spec"]["kubernetesVersion"]
    return cluster.model_copy(update={"spec": cluster.spec.model_copy(update=changed)})


def dump(cluster: Cluster) -> dict[str, Any]:
    """The spec as plain data, with every default written out: what the record keeps and ``validate`` reads again."""
    return cluster.model_dump(mode="json", by_alias=True)

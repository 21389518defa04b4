"""From a file (or a folder, or nothing) to a validated ``Cluster``, with every error as one clear line.

Always holds: whatever the input, either a ``Cluster`` comes back or a UsageError of the form
``FILE: PATH: VALUE, should be WHAT``, in time that grows with the length of the input; nothing is changed anywhere. A key that
stands twice is an error rather than a silent choice.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from moyai.core.errors import UsageError
from moyai.core.reading import STANDARD_INPUT, read_text
from moyai.core.yamlread import Limits, YamlError, read
from moyai.spec import control_plane
from moyai.spec.merging import MOST_VALUES, merge
from moyai.spec.model import Cluster
from moyai.spec.object_names import RECORDED
from moyai.spec.pod_network import enforced
from moyai.spec.security import kept
from moyai.spec.tree import Tree, short, shown, tree_of

SPEC_FILE = "cluster.yaml"
STANDARD_INPUT_NAME = "standard input"
MAX_SIZE = 1 << 20
#: A spec is five deep, and one of 500 pools with 20 labels each has 25,000 values.
LIMITS = Limits(values=MOST_VALUES, depth=20, strict=True)


@dataclass(frozen=True)
class LoadedSpec:
    """``source``: the first file, None for the default spec. ``manifests``: of Kubernetes, from the folders that were named."""

    cluster: Cluster
    source: Path | None = None
    manifests: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _SpecFile:
    """One file of a spec: its text, how errors call it, and the manifests beside it."""

    file: Path
    text: str
    source: str
    manifests: tuple[Path, ...]


def load(*paths: Path | None) -> LoadedSpec:
    """The spec at a path: a file, ``-`` for standard input, or a folder with ``cluster.yaml`` and manifests.

    Several paths: the spec that they make together, each laid on top of those before it (``spec.merging``). None at all, or
    None: the default spec.
    """
    parts = [_read(path) for path in paths if path is not None]
    if not parts:
        return LoadedSpec(Cluster())
    if len(parts) == 1:
        cluster = parse(parts[0].text, source=parts[0].source)
    else:
        merged = _merged(parts)
        cluster = validate(merged.plain(), source=merged.source_of)
    return LoadedSpec(cluster, parts[0].file, tuple(dict.fromkeys(file for part in parts for file in part.manifests)))


def merged(*paths: Path) -> Any:
    """The document that the files at ``paths`` make together, not checked yet."""
    return _merged([_read(path) for path in paths]).plain()


def _merged(parts: Sequence[_SpecFile]) -> Tree:
    twice = next((name for name, count in Counter(part.source for part in parts).items() if count > 1), "")
    if twice == STANDARD_INPUT_NAME:
        raise UsageError("standard input is named twice, and can be read once")
    # files of one name in several folders are told apart by their paths
    named = [part.source if part.source != twice else str(part.file) for part in parts]
    return merge(tree_of(_document(part.text, source=name), name) for part, name in zip(parts, named, strict=True))


def _read(path: Path) -> _SpecFile:
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
    source = STANDARD_INPUT_NAME if file == STANDARD_INPUT else file.name if file.is_file() else str(file)
    return _SpecFile(file, text, source, manifests)


def parse(text: str, *, source: str = SPEC_FILE) -> Cluster:
    """The spec in ``text``; ``source`` is how errors call it."""
    return validate(_document(text, source=source), source=source)


def _document(text: str, *, source: str) -> Any:
    try:
        documents = [document for document in read(text, LIMITS) if document is not None]
    except YamlError as error:
        raise UsageError(f"{source}{error.where}: {error.problem}") from None
    if len(documents) > 1:
        raise UsageError(f"{source}: {len(documents)} documents, should be one")
    return documents[0] if documents else {}


def validate(document: object, *, source: str | Callable[[Sequence[str | int]], str], recorded: bool = False) -> Cluster:
    """The spec in a document already read.

    ``source``: how errors call the file, or the file of each place. ``recorded``: a cluster was made from it, so that it need
    not keep rules that are younger than the cluster.
    """

    def named(location: Sequence[str | int]) -> str:
        return source if isinstance(source, str) else source(location)

    if not isinstance(document, dict):
        raise UsageError(f"{named(())}: {_show(document)}, should be a mapping with apiVersion, kind, metadata and spec")
    try:
        return Cluster.model_validate(_without_none(cast("dict[Any, Any]", document)), context={RECORDED: recorded})
    except RecursionError:
        raise UsageError(f"{named(())}: nested more than {LIMITS.depth} deep") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"{named(_location(first))}: {_line(first, cast('dict[Any, Any]', document))}") from None


def _without_none(value: Any) -> Any:
    """``spec:`` with nothing behind it means "the default", as it does in Kubernetes; so does an explicit null."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in cast("dict[Any, Any]", value).items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in cast("list[Any]", value)]
    return value


def _location(error: ErrorDetails) -> tuple[str | int, ...]:
    at = cast("Sequence[str | int]", (error.get("ctx") or {}).get("at", ()))
    return tuple(part for part in (*error["loc"], *at) if part != "[key]")


def _line(error: ErrorDetails, document: dict[Any, Any]) -> str:
    context, location = error.get("ctx") or {}, _location(error)
    where = shown(location)
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
    return short(repr(value) if isinstance(value, str) else str(value))


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
    has. Raises UsageError for one that moyai has not dumped."""
    for name in ("network", "kubernetesVersion"):
        if name not in before["spec"]:
            raise UsageError(f"record: spec.{name}: missing, should be there")
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

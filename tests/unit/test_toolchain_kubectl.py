"""Which kubectl serves a cluster: the pinned one, the user's own within one minor version, else the pinned one alone is got."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moyai.core.errors import MoyaiError
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.toolchain import Toolchain, find_kubectl, get_kubectl, golang
from moyai.toolchain import toolchain as module
from moyai.toolchain.component_store import ComponentStore
from moyai.toolchain.pins import Pin, load_pins, single
from moyai.toolchain.release import Hosts

Program = Callable[[str, str], Path]


@pytest.fixture
def chain(tmp_path: Path) -> Toolchain:
    """Nothing is installed, and no host answers."""
    return Toolchain(Paths(tmp_path / "cache", tmp_path / "state"), Reporter(), hosts=Hosts(lambda _: False))


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a kubectl of a version at the end of the PATH."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(golang, "_PLACES", ())

    def put(folder: str, version: str) -> Path:
        file = tmp_path / folder / "kubectl"
        file.parent.mkdir()
        said = json.dumps({"clientVersion": {"gitVersion": version}})
        file.write_text(f"#!/bin/sh\necho '{said}'\n")
        file.chmod(0o755)
        monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{file.parent}")
        return file

    return put


def install(chain_paths: Path, pin: Pin) -> None:
    def fill(target: Path) -> str:
        for name in pin.files:
            (target / name).write_text(name)
        return "a test"

    ComponentStore(chain_paths).make(pin, fill, on_wait=print)


@pytest.mark.parametrize("pinned", ["with its component", "alone"])
def test_the_pinned_one_goes_first(pinned: str, chain: Toolchain, program: Program, tmp_path: Path) -> None:
    program("bin", "v1.37.0")
    pin = load_pins().components["kubernetes"]
    install(tmp_path / "cache/toolchain", pin if pinned == "with its component" else single(pin, "kubectl"))
    found = find_kubectl(chain, server="1.37.1")
    assert found is not None
    assert (tmp_path / "cache/toolchain") in found.parents
    chain.clean()
    assert found.exists(), "`clean` leaves what is pinned"


@pytest.mark.parametrize(
    ("version", "suits"),
    [("v1.37.9", True), ("v1.36.2", True), ("v1.38.0-rc.1", True), ("v1.35.9", False), ("v1.39.0", False), ("v2.37.1", False)],
)
def test_the_users_own_serves_within_one_minor_version_of_the_server(
    version: str, suits: bool, chain: Toolchain, program: Program
) -> None:
    own = program("bin", version)
    assert find_kubectl(chain, server="1.37.1") == (own if suits else None)


def test_the_first_of_the_path_that_suits_is_taken(chain: Toolchain, program: Program, tmp_path: Path) -> None:
    program("old", "v1.20.0")
    broken = program("broken", "")
    broken.write_text("#!/bin/sh\nexit 1\n")
    own = program("new", "v1.37.1")
    assert find_kubectl(chain, server="1.37.1") == own


def test_a_script_that_calls_moyai_kubectl_is_not_asked_in_a_circle(chain: Toolchain, program: Program, tmp_path: Path) -> None:
    program("bin", "v1.37.1").write_text('#!/bin/sh\nexec moyai kubectl "$@"\n')
    moyai = tmp_path / "bin" / "moyai"
    moyai.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    moyai.chmod(0o755)
    assert find_kubectl(chain, server="1.37.1") is None
    assert not (tmp_path / "called").exists()


def test_where_nothing_can_be_had_one_line_says_what_would_help(chain: Toolchain, program: Program) -> None:
    with pytest.raises(MoyaiError) as caught:
        get_kubectl(chain, server="1.36.0", reporter=Reporter())
    assert str(caught.value) == (
        "kubectl cannot be fetched: dl.k8s.io does not answer, and this machine has no Go to build it with: "
        "with a kubectl of version 1.35 to 1.37 on the PATH it is not needed"
    )


def test_kubectl_alone_is_fetched(tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[tuple[str, ...]] = []

    def fetch(pin: Pin, release: Any, *, target: Path, step: Any) -> str:
        fetched.append(pin.files)
        (target / "kubectl").write_text("kubectl")
        return "a release file"

    monkeypatch.setattr(module, "fetch", fetch)
    chain = Toolchain(Paths(tmp_path / "cache", tmp_path / "state"), Reporter(), hosts=Hosts(lambda _: True))
    made = get_kubectl(chain, server="1.37.1", reporter=Reporter())
    assert fetched == [("kubectl",)]
    assert made.read_text() == "kubectl"
    assert chain.find("kubernetes") is None
    assert get_kubectl(chain, server="1.37.1", reporter=Reporter()) == made
    assert len(fetched) == 1


def test_kubectl_alone_is_built_where_there_is_go(chain: Toolchain, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[dict[str, str]] = []

    def build(_self: object, _name: str, modules: Any, *, target: Path, step: Any, turn: int) -> str:
        built.append(dict(modules.files))
        (target / "kubectl").write_text("kubectl")
        return "built"

    def installed(_self: object) -> golang.Go:
        return golang.Go(Path("go"), "1.30", "this machine")

    monkeypatch.setattr(golang.GoToolchain, "installed", installed)
    monkeypatch.setattr(golang.GoToolchain, "build", build)
    get_kubectl(chain, server="1.37.1", reporter=Reporter())
    assert built == [{"kubectl": "k8s.io/kubernetes/cmd/kubectl"}]

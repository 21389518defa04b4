"""How ginkgo is started, read while it writes, and ended in time. A script plays ginkgo."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.ginkgo import Programs, Target, command, run_tests
from tests.conformance.log import Outcome
from tests.conformance.parts import parts

A, B = "[sig-x] a [Conformance]", "[sig-x] b [Conformance]"
DASHES = "-" * 30


def _script(folder: Path, text: str) -> list[str]:
    file = folder / "ginkgo"
    file.write_text(f'#!/bin/sh\nblock() {{ printf \'%s\\n%s [sig-x]\\n{DASHES}\\n\' "$1" "$2"; }}\n{text}\n')
    file.chmod(0o755)
    return [str(file)]


def test_outcomes_come_one_by_one_and_the_log_has_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/users/own")
    text = f"block '• [1.0 seconds]' '{A}'; block '• [FAILED] [2.0 seconds]' '{B}'; echo \"has $KUBECONFIG\"; exit 1"
    found: list[Outcome] = []
    log = tmp_path / "e2e.log"
    log.write_text("before\n")
    assert run_tests(_script(tmp_path, text), [A, B], log=log, seconds=60, on_outcome=found.append) == 1
    assert found == [Outcome(A, "passed", 1.0), Outcome(B, "failed", 2.0, "failed")]
    assert log.read_text().startswith(f"before\n• [1.0 seconds]\n{A} [sig-x]\n")
    # the tests must never meet the user's own cluster
    assert log.read_text().endswith("has \n")


def test_a_run_out_of_time_keeps_what_had_ended(tmp_path: Path) -> None:
    trap = f"trap \"block '• [INTERRUPTED] [9.0 seconds]' '{B}'; exit 2\" TERM"
    text = f"{trap}\nblock '• [1.0 seconds]' '{A}'\nwhile :; do sleep 60; done"
    found: list[Outcome] = []
    code = run_tests(_script(tmp_path, text), [A, B], log=tmp_path / "log", seconds=0.3, on_outcome=found.append)
    assert (code, found) == (2, [Outcome(A, "passed", 1.0)])


def test_the_command_names_the_cluster_the_tests_and_the_part(tmp_path: Path) -> None:
    programs = Programs(tmp_path / "ginkgo", tmp_path / "e2e.test", tmp_path / "kubectl")
    target = Target(tmp_path / "kubeconfig", nodes=3)
    words = command(programs, target, part=parts()["storage-delayed"], names=[A, B], processes=5)
    own, tests = words[: words.index("--")], words[words.index("--") + 1 :]
    assert own[0] == str(tmp_path / "ginkgo")
    assert own[-1] == str(tmp_path / "e2e.test")
    assert "--procs=5" in own
    assert [word for word in own if word.startswith("--focus")] == [
        r"--focus=^Kubernetes e2e suite (\[sig-x\] a \[Conformance\]|\[sig-x\] b \[Conformance\])$"
    ]
    assert {f"--kubeconfig={tmp_path / 'kubeconfig'}", "--num-nodes=3", f"--kubectl-path={tmp_path / 'kubectl'}"} <= set(tests)
    (driver,) = [word.partition("=")[2] for word in tests if word.startswith("--storage.testdriver=")]
    assert Path(driver).is_absolute()
    assert "csi-cinder" in Path(driver).read_text()

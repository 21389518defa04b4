"""policy-rc.d while packages are installed: the host gets its own back, at whatever moment moyai is killed."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from moyai.cloud.memory import Killed
from moyai.localcloud.packages import no_daemon_starts, put_policy_back

Host = Callable[[Path], None]


def script(policy: Path) -> None:
    policy.write_text("#!/bin/sh\nexit 0\n")
    policy.chmod(0o750)


def link(policy: Path) -> None:
    policy.symlink_to("/usr/sbin/policy-of-the-administrator")


def nothing(policy: Path) -> None:
    del policy


def state(folder: Path) -> list[tuple[str, int, str]]:
    return [
        (path.name, path.lstat().st_mode, str(path.readlink()) if path.is_symlink() else path.read_text())
        for path in sorted(folder.iterdir())
    ]


@pytest.mark.parametrize("host", [script, link, nothing])
def test_no_daemon_starts_meanwhile_and_the_hosts_own_policy_comes_back(tmp_path: Path, host: Host) -> None:
    policy = tmp_path / "policy-rc.d"
    host(policy)
    before = state(tmp_path)
    with no_daemon_starts(policy):
        assert subprocess.run([policy], check=False).returncode == 101
    assert state(tmp_path) == before


STEPS = ("os.link", "pathlib.Path.write_text", "pathlib.Path.chmod", "pathlib.Path.replace")


@pytest.mark.parametrize("host", [script, link, nothing])
@pytest.mark.parametrize("step", [*STEPS, "installing"])
def test_killed_before_any_step_the_next_run_puts_the_policy_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: Host, step: str
) -> None:
    policy = tmp_path / "policy-rc.d"
    host(policy)
    before = state(tmp_path)
    context = no_daemon_starts(policy)
    if step == "installing":
        context.__enter__()
    else:

        def kill(*_: object, **__: object) -> None:
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(step, kill)
            with contextlib.suppress(Killed):  # without a policy of the host, there is nothing to link
                context.__enter__()
    with no_daemon_starts(policy):
        pass
    assert state(tmp_path) == before
    put_policy_back(policy)
    assert state(tmp_path) == before

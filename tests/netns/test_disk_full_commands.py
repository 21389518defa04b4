"""Commands whose disk is full: one line, exit code 1, and the same command with room finishes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.netns.small_disk import SmallDisk, on_small_disk
from tests.unit.lifecycle_world import World

MOYAI = [sys.executable, "-c", "from moyai.cli.main import main; main()"]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of a cluster."""
    world = World(tmp_path / "made", monkeypatch)
    world.up()
    return world.paths.state


def command(*words: str, state: Path, home: Path, output: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "MOYAI_STATE_DIR": str(state), "HOME": str(home), "TMPDIR": str(home)}
    with (output or Path(os.devnull)).open("wb") as stdout:
        return subprocess.run(
            [*MOYAI, *words], env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, check=False
        )


def said(done: subprocess.CompletedProcess[bytes], code: int) -> str:
    """The one line of a command."""
    lines = done.stderr.decode().splitlines()
    assert done.returncode == code, lines
    assert len(lines) == 1, lines
    assert lines[0].startswith("moyai: ")
    return lines[0]


def test_commands_on_a_full_disk(tmp_path: Path, cluster: Path) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()

    def body(disk: SmallDisk) -> None:
        home, state = mount / "home", mount / "state"
        home.mkdir()
        shutil.copytree(cluster, state)
        disk.leave(0, "inodes")
        line = said(command("kubeconfig", "--write", state=state, home=home), 1)
        assert f"{home}/.kube" in line
        assert "No space left on device" in line
        disk.make_room()
        output = mount / "output"
        output.touch()
        disk.leave(0, "pages")
        line = said(command("kubeconfig", state=state, home=home, output=output), 1)
        assert "standard output cannot be written: No space left on device" in line
        disk.make_room()
        done = command("kubeconfig", "--write", state=state, home=home, output=output)
        assert done.returncode == 0, done.stderr
        assert (home / ".kube" / "config").exists()

    on_small_disk(mount, body)


def test_an_error_whose_details_cannot_be_kept(tmp_path: Path) -> None:
    """The command fails with an error that nobody foresaw, and the folder for its details cannot be made."""
    mount = tmp_path / "disk"
    mount.mkdir()
    broken = (
        "from moyai.cli import main\n"
        "main.COMMANDS['status'] = ('tests.netns.test_disk_full_commands:unforeseen', 'fails')\n"
        "main.main()\n"
    )

    def body(disk: SmallDisk) -> None:
        state = mount / "state"
        disk.leave(0, "inodes")
        environment = {**os.environ, "MOYAI_STATE_DIR": str(state)}
        done = subprocess.run([sys.executable, "-c", broken, "status"], env=environment, stderr=subprocess.PIPE, check=False)
        line = said(done, 1)
        assert "unforeseen error" in line
        assert "details are not kept" in line
        assert "No space left on device" in line

    on_small_disk(mount, body)


@click.command()
def unforeseen() -> None:
    """A command with a fault."""
    raise ZeroDivisionError("a fault of ours")

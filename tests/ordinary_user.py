"""An ordinary user with an installed wheel: no root, no Go, no compiler, a home of their own, a PATH that is not all theirs.

The wheel is built as a user gets it, and installed into a fresh environment, which everybody may read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from moyai.localcloud.env import uv_program

ROOT = Path(__file__).parents[1]
#: Nobody's on a stock Debian.
USER = 64999
#: A shell's words, in a mount namespace of their own: the host's Go is out of sight, whatever it has, and the user is one whom
#: the host knows, as OpenSSH's client asks for.
WITHOUT_GO = f"""
PATH=/usr/bin:/bin
mount -t tmpfs tmpfs /mnt || exit 99
{{ cat /etc/passwd; echo "ordinary:x:{USER}:{USER}::$HOME:/bin/sh"; }} >/mnt/passwd
mount --bind /mnt/passwd /etc/passwd || exit 99
for folder in /usr/local/go /usr/lib/go /usr/lib/go-*; do [ ! -d "$folder" ] || mount -t tmpfs tmpfs "$folder" || exit 99; done
exec env PATH="$MOYAI_TEST_PATH" /usr/bin/"$0" "$@"
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


class Ordinary:
    """``folder``: with the environment, the user's home, and a folder that the user may not read, first on the PATH.

    ``seconds``: a command may take so long.
    """

    def __init__(self, folder: Path, *, seconds: float) -> None:
        self.home, self.bin, self.secret = folder / "home", folder / "home/bin", folder / "secret"
        self._folder, self._seconds = folder, seconds

    def run(self, *words: str, **variables: str) -> Answer:
        environ = {
            "HOME": str(self.home),
            "MOYAI_TEST_PATH": f"{self.secret}:{self._folder}/env/bin:{self.bin}",
            "LANG": "C.UTF-8",
            **variables,
        }
        identity = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs")
        done = subprocess.run(
            ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", WITHOUT_GO, *identity, self._folder / "env/bin/moyai", *words],
            capture_output=True,
            text=True,
            check=False,
            env=environ,
            cwd=self.home,
            timeout=self._seconds,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode != 99, done.stderr
        assert "Traceback" not in done.stderr
        assert "unforeseen" not in done.stderr
        return Answer(done.returncode, done.stdout, done.stderr)

    def program(self, name: str, text: str) -> None:
        file = self.bin / name
        file.write_text(text)
        file.chmod(0o755)

    def own(self) -> None:
        for file in (self.home, *self.home.rglob("*")):
            os.chown(file, USER, USER, follow_symlinks=False)


@contextmanager
def installed_wheel() -> Generator[Path]:
    """A fresh environment with the wheel in it, which everybody may read."""
    # pytest's own folders are their owner's alone
    folder = Path(tempfile.mkdtemp(prefix="moyai-wheel-"))
    folder.chmod(0o755)
    uv = uv_program()
    environ = {**os.environ, "PYTHONPATH": ""}

    def call(*words: str | Path) -> None:
        subprocess.run([uv, *words], check=True, env=environ, cwd=ROOT, umask=0o022)

    try:
        call("build", "--quiet", "--wheel", "--out-dir", folder / "dist", ROOT)
        # links instead of copies would lead into root's own folders
        call("venv", "--quiet", "--python", sys.executable, folder / "env")
        into = ("--python", folder / "env/bin/python", "--link-mode", "copy")
        call("pip", "install", "--quiet", *into, "--require-hashes", "-r", ROOT / "requirements.lock")
        call("pip", "install", "--quiet", *into, "--no-deps", *(folder / "dist").glob("*.whl"))
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def ordinary_user(installed: Path, *, seconds: float = 300) -> Generator[Ordinary]:
    """A user with an empty home, for as long as it lasts."""
    user = Ordinary(installed, seconds=seconds)
    user.bin.mkdir(parents=True)
    user.secret.mkdir(mode=0o700)
    user.own()
    try:
        yield user
    finally:
        shutil.rmtree(user.home)
        user.secret.rmdir()

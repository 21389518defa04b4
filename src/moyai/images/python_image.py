"""The image of moyai itself: Debian's Python, moyai's runtime dependencies (locked, with hashes), and moyai's source last.

The big layer is kept by what goes into it, so a change of moyai's source recreates only the small one. Python is compiled
beforehand with the image's own interpreter and by content (not date), so that it starts fast and is always the same bytes.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import moyai
from moyai.core.errors import Terminal
from moyai.images import base_files
from moyai.images.cache import Cache, digest_of_folder, key_of, remove
from moyai.images.oci import Entry, ImageConfig, Layer, folder, from_folder, write_archive, write_layer
from moyai.images.recipes import debian_tree
from moyai.linux.process import ProcessError, run

_FORMAT = 4
#: Python; what the CSI node plug-in makes, checks, grows and mounts file systems with; FRR, with which nodes speak BGP.
PACKAGES = ("python3", "e2fsprogs", "frr", "libnftables1", "mount", "util-linux", "xfsprogs")
#: FRR's daemons that nobody starts, its scripts, and what its package asks for besides.
_NOT_STARTED = (
    "babeld", "eigrpd", "fabricd", "frr-reload", "frrcommon.sh", "frrinit.sh", "isisd", "ldpd", "nhrpd", "ospf6d", "ospfd",
    "pathd", "pbrd", "pimd", "ripd", "ripngd", "staticd", "vrrpd", "watchfrr", "watchfrr.sh",
)  # fmt: skip
FRR_WITHOUT = (*(f"usr/lib/frr/{name}" for name in _NOT_STARTED), "usr/bin/lsof", "usr/sbin/logrotate")
#: FRR starts only where the user of its daemons is in this group.
ROOTS_GROUPS = {"frrvty": 901}
LOCK = Path(__file__).with_name("requirements-runtime.lock")
SOURCE = Path(moyai.__file__).parent

#: Parts of the standard library that no server needs.
_WITHOUT = ("test", "idlelib", "lib2to3", "ensurepip", "pydoc_data", "tkinter", "turtledemo", "distutils", "unittest/test")

_ENTRY = b"""#!/usr/bin/python3
import sys

from moyai.cli.main import main

sys.exit(main())
"""

CONFIG = ImageConfig(
    entrypoint=("/usr/local/bin/moyai",),
    env={
        "PYTHONPATH": "/opt/moyai/src:/opt/moyai/lib",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "LC_ALL": "C.UTF-8",
        "HOME": "/tmp",
    },
)


def moyai_image(cache: Cache, tag: str, *, on_line: Callable[[str], None]) -> Path:
    """The archive of moyai's image, named by its dependencies and its source."""
    layer, python = dependencies_layer(cache, on_line)
    source = digest_of_folder(SOURCE)
    key = key_of("moyai", _FORMAT, tag, layer.digest, source)

    def make(target: Path) -> None:
        on_line("moyai's source")
        copy = target.with_name(f"{target.name}-source")
        small = target.with_name(f"{target.name}-layer")
        try:
            shutil.copytree(SOURCE, copy / "moyai", ignore=shutil.ignore_patterns("__pycache__"))
            python.compile(copy, "/opt/moyai/src")
            entries = [
                *from_folder(copy, "opt/moyai/src", plain_modes=True),
                Entry("usr/local/bin/moyai", 0o755, content=_ENTRY),
            ]
            write_archive(target, tags=[tag], layers=[layer, write_layer(entries, small)], config=CONFIG)
        finally:
            remove(copy)
            remove(small)

    return cache.get("moyai", key, make=make, suffix=".tar", say=on_line)


def dependencies_layer(cache: Cache, on_line: Callable[[str], None]) -> tuple[Layer, Interpreter]:
    """The big layer (Python and what moyai needs), and the interpreter that is in it."""
    root = debian_tree(cache, "python", packages=PACKAGES, on_line=on_line)
    python = Interpreter(root)
    key = key_of("dependencies", _FORMAT, root.name, LOCK.read_text(), _WITHOUT)

    def make(target: Path) -> None:
        work = target.with_name(f"{target.name}-work")
        try:
            library = work / "lib"
            on_line("Python packages")
            install(python.version, library)
            on_line("compiling Python")
            python.compile(library, "/opt/moyai/lib")
            standard = work / "standard"
            shutil.copytree(root / "usr/lib" / python.name, standard, symlinks=True, ignore=_left_out)
            python.compile(standard, f"/usr/lib/{python.name}")
            entries = [
                *base_files.users(groups_of_root=ROOTS_GROUPS),
                *base_files.packages(root, without=[f"usr/lib/{python.name}", "usr/lib/python3/dist-packages", *FRR_WITHOUT]),
                *from_folder(standard, f"usr/lib/{python.name}", plain_modes=True),
                *from_folder(library, "opt/moyai/lib", plain_modes=True),
                folder("opt/moyai"),
            ]
            layer = work / "layer.tar"
            digest = write_layer(entries, layer).digest
            target.mkdir()
            layer.rename(target / "layer.tar")
            (target / "digest").write_text(digest)
        finally:
            remove(work)

    made = cache.get("moyai-dependencies", key, make=make, say=on_line)
    return Layer(made / "layer.tar", (made / "digest").read_text()), python


def _left_out(parent: str, names: list[str]) -> set[str]:
    return {name for name in names if name in (*_WITHOUT, "__pycache__")} if "/dist-packages" not in parent else set()


def install(version: str, target: Path) -> None:
    """Install moyai's runtime dependencies for Python ``version`` (as ``3.11``) into the folder ``target``."""
    beside = Path(sys.executable).with_name("uv")
    words = [str(beside) if beside.exists() else "uv", "pip", "install", "--quiet", "--target", str(target), "--no-deps"]
    words += ["--python", sys.executable, "--python-version", version, "--only-binary", ":all:", "--require-hashes"]
    try:
        run([*words, "--link-mode", "copy", "-r", str(LOCK)])
    except ProcessError as error:
        raise Terminal(
            f"moyai's Python packages could not be fetched: {error}", hint="is the package index reachable?"
        ) from error
    # scripts name the Python that installed them, records the place: neither is of use in the image
    remove(target / "bin")
    for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"):
        for path in target.glob(f"*.dist-info/{name}"):
            path.unlink()
    remove(target / ".lock")
    # the models of another vendor's 400 services, 24 MB: NIFCLOUD's SDK brings its own and reads no other
    remove(target / "botocore" / "data")


class Interpreter:
    """The Python of an unpacked Debian, run from where it lies, with its own libraries."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.name = (root / "usr/bin/python3").readlink().name
        self.version = self.name.removeprefix("python")

    def compile(self, source: Path, place: str) -> None:
        """Compile all Python below ``source``, which will be at ``place``. Validity depends on the content, not on dates."""
        loader = next(self._root.glob("lib64/ld-linux-*.so.*"), None) or next(self._root.glob("lib/ld-linux-*.so.*"))
        libraries = ":".join(
            str(path) for pattern in ("lib/*-linux-gnu", "usr/lib/*-linux-gnu") for path in self._root.glob(pattern)
        )
        words = [str(loader), "--library-path", libraries, str(self._root / "usr/bin" / self.name), "-S", "-m", "compileall"]
        words += ["-q", "-j", "1", "--invalidation-mode", "unchecked-hash", "-s", str(source), "-p", place, str(source)]
        # a package may ship files for other Pythons, which do not compile and are never imported: that is no failure of ours
        env = {"PYTHONHOME": str(self._root / "usr"), "PYTHONHASHSEED": "0", "PYTHONPATH": "", "LC_ALL": "C.UTF-8"}
        done = run(words, env=env, check=False)
        if done.returncode > 1 or not any(source.rglob("*.pyc")):
            raise Terminal(f"Python cannot be compiled: {done.stderr.strip() or done.stdout.strip()}")

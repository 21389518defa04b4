"""OpenStack's own Python environment: installed once from a lock with hashes, then only used.

The lock (``data/openstack.lock``) was compiled from ``data/openstack.in`` under OpenStack's upper constraints; nothing that
it does not name is installed. Two things are changed in our copy, each an explicit step that fails loudly where the text
it replaces is not there: oslo.messaging's wait for answers, and the names under which OpenStack finds our drivers. The
folder is named by a key of all inputs, and is complete if and only if it holds the marker file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import moyai
from moyai.core.errors import MoyaiError
from moyai.core.files import naming, write_private
from moyai.core.paths import Paths
from moyai.core.progress import Progress
from moyai.linux.process import ProcessError, run, stream
from moyai.localcloud.drivers.octavia import provider_names

PYTHON = "3.11"
#: Debian 12's own, before any other that uv would find: it is built with optimisations that one built by hand often lacks,
#: in which Neutron's calls take 1.2 to 1.35 times as long (measured).
_DEBIANS = Path(f"/usr/bin/python{PYTHON}")
_MARKER = ".complete"
_PROVIDER = "moyai.localcloud.drivers.octavia.provider:MoyaiProvider"


@dataclass(frozen=True)
class Patch:
    """Replace ``old`` (which must occur exactly once) by ``new`` in ``file`` below site-packages; ``why`` is for the error."""

    file: str
    old: str
    new: str
    why: str


#: oslo.messaging polls for RPC answers every half second, so that each call costs at least that (Launchpad 2035113).
PATCHES = (
    Patch(
        "oslo_messaging/_drivers/amqpdriver.py",
        "            time.sleep(0.5)\n",
        "            time.sleep(0.01)\n",
        "RPC answers are taken when they come",
    ),
    # tools, flavors and charts name Octavia's own driver, which needs virtual machines: these names lead to our provider
    *(
        Patch(
            "octavia-15.1.0.dist-info/entry_points.txt",
            f"\n{name} = octavia.api.drivers.amphora_driver.v2.driver:AmphoraProviderDriver\n",
            f"\n{name} = {_PROVIDER}\n",
            f"the provider {name} is ours",
        )
        for name in provider_names.ALIASES
    ),
)

#: Files written into site-packages: Nova takes drivers only from its own package.
SHIMS = {"nova/virt/moyai_nspawn.py": "from moyai.localcloud.drivers.nova.driver import NspawnDriver  # noqa: F401\n"}

#: Files beside the link to our package: the metadata by which Octavia finds the provider of an installed package.
BESIDE = {
    "moyai_drivers-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: moyai-drivers\nVersion: 1.0\n",
    "moyai_drivers-1.0.dist-info/entry_points.txt": (f"[octavia.api.drivers]\n{provider_names.MOYAI} = {_PROVIDER}\n"),
}


@dataclass(frozen=True)
class OpenStackEnv:
    """An installed environment. ``key`` changes with anything that is in it."""

    root: Path
    key: str

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        return self.root / "lib" / f"python{PYTHON}" / "site-packages"

    @property
    def etc(self) -> Path:
        """The services' own API pipelines and filters."""
        return self.root / "etc"

    def program(self, name: str) -> str:
        return str(self.root / "bin" / name)


def lock_text() -> str:
    return resources.files("moyai.localcloud").joinpath("data/openstack.lock").read_text()


def interpreter() -> str:
    """Which Python the environment is made with, as uv takes it: a path, or a version to look for."""
    return str(_DEBIANS) if _DEBIANS.exists() else PYTHON


def host_packages() -> tuple[str, ...]:
    """Debian packages that installing needs: not all that the lock names has a wheel, and netifaces is written in C."""
    return ("gcc", "libc6-dev", *(("python3-dev",) if _DEBIANS.exists() else ()))


def env_key(lock: str) -> str:
    """What the environment's folder is called: a digest of everything that decides its content."""
    digest = hashlib.sha256(interpreter().encode())
    for text in (lock, repr(PATCHES), repr(sorted(SHIMS.items()))):
        digest.update(text.encode())
    return digest.hexdigest()[:12]


def find(paths: Paths) -> OpenStackEnv | None:
    """The environment of this version of moyai, if it is installed whole."""
    key = env_key(lock_text())
    env = OpenStackEnv(paths.openstack_env / key, key)
    return env if (env.root / _MARKER).exists() else None


def ensure(paths: Paths, step: Progress | None = None) -> OpenStackEnv:
    """Install the environment if it is absent. Only then a package index (or uv's cache) is needed.

    Raises MoyaiError when uv is missing, or the installation or a patch fails; what was half done is done again next time.
    """
    env = find(paths)
    if env is None:
        key = env_key(lock_text())
        env = OpenStackEnv(paths.openstack_env / key, key)
        _install(env, step)
    return env


def uv_program() -> str:
    """Where uv is: beside the running Python, else on the PATH."""
    beside = Path(sys.executable).parent / "uv"
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise MoyaiError("uv was not found", hint="`make setup` installs it into moyai's own environment")
    return found


def _install(env: OpenStackEnv, step: Progress | None) -> None:
    def say(text: str, fraction: float) -> None:
        if step:
            step.progress(text, fraction)

    uv = uv_program()
    if env.root.exists():
        shutil.rmtree(env.root)
    env.root.parent.mkdir(parents=True, exist_ok=True)
    # the caller's PYTHONPATH must not change which packages are found
    clean = {"PYTHONPATH": "", "VIRTUAL_ENV": str(env.root), "UV_NO_PROGRESS": "1"}
    try:
        say("Python", 0.0)
        run([uv, "venv", "--quiet", "--python", interpreter(), env.root], env=clean)
        lock = env.root / "openstack.lock"
        write_private(lock, lock_text())
        say("packages", 0.05)
        stream(
            [uv, "pip", "install", "--require-hashes", "--python", env.python, "--requirement", lock],
            lambda line: say(line.strip(), 0.1),
            env=clean,
        )
    except ProcessError as error:
        raise MoyaiError(f"OpenStack's environment cannot be installed in {env.root}: {error}") from error
    for patch in PATCHES:
        apply_patch(env.site_packages, patch)
    for name, text in SHIMS.items():
        file = env.site_packages / name
        with naming(file):
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
    say("compile", 0.6)
    # bytecode is written now, once, rather than by eighteen services side by side at their first start; a test file in
    # some package that does not compile is no reason to stop
    jobs = str(os.cpu_count() or 1)
    compileall = [env.python, "-m", "compileall", "-q", "-j", jobs, "-x", r"[/\\]tests?[/\\]", env.site_packages]
    run(compileall, check=False)
    # the marker must not be on the disk before the thousands of files that it stands for
    os.sync()
    write_private(env.root / _MARKER, "installed, patched and compiled\n")


def apply_patch(site_packages: Path, patch: Patch) -> None:
    """Make one change; raises MoyaiError when the text to be replaced is not there exactly once."""
    file = site_packages / patch.file
    text = file.read_text() if file.exists() else ""
    if text.count(patch.old) != 1:
        raise MoyaiError(
            f"{patch.file} is not as expected: {patch.old.strip()!r} occurs {text.count(patch.old)} times in it",
            hint=f"the patch ({patch.why}) must be looked at again for this version",
        )
    # uv hard-links files from its cache: write a new file, or the cache would be changed too
    fresh = file.with_suffix(".moyai")
    with naming(file):
        fresh.write_text(text.replace(patch.old, patch.new))
        fresh.replace(file)


def link_package(folder: Path) -> None:
    """Make ``folder`` a PYTHONPATH that contains only the running moyai, so that each cloud uses the moyai that started it."""
    folder.mkdir(exist_ok=True, mode=0o700)
    for name, text in BESIDE.items():
        file = folder / name
        if not file.exists() or file.read_text() != text:
            write_private(file, text)
    package = Path(moyai.__file__).resolve().parent
    link = folder / "moyai"
    if link.is_symlink() and link.readlink() == package:
        return
    fresh = folder / f".moyai-{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(package)
    fresh.replace(link)

"""Debian root file systems by mmdebstrap, from the very sources that this host's apt is configured with.

No mirror is named here: suite, addresses, keys, proxies and validity rules are the host's own. ``bootstrap`` makes a
whole, configured system; ``extract`` only unpacks packages and what they need (no scripts run), for small images.
"""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moyai.core.errors import Terminal
from moyai.linux.process import ProcessError, run, stream

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TARGET_FORMAT = "|".join(f"$({name})" for name in ("CREATED_BY", "REPO_URI", "RELEASE", "COMPONENT", "SOURCESENTRY"))
#: Settings of the host's apt that decide whether and how its sources can be reached.
_KEPT_SETTINGS = re.compile(r"Acquire::(https?::|Check-|Max-|Min-|Retries|ForceIPv)[^ ]* .*")
#: Makes /bin, /lib and /lib64 links into /usr before anything is unpacked, as in every Debian since 12.
_MERGED_USR = Path("/usr/share/mmdebstrap/hooks/merged-usr")
_SMALL = ("man", "info", "lintian", "locale", "bug", "doc-base")


@dataclass(frozen=True)
class Sources:
    """Where packages come from: the release's code name, lines of sources.list, settings of apt."""

    codename: str
    lines: tuple[str, ...]
    settings: tuple[str, ...] = ()


def codename() -> str:
    """This host's release of Debian (``bookworm``). Raises Terminal where the host is no Debian."""
    release = platform.freedesktop_os_release()
    name = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not name:
        raise Terminal("images can only be made on Debian", hint="use Debian 12 or 13")
    return name


def host_sources() -> Sources:
    """The Debian sources of this host's apt. Raises Terminal where the host is no Debian or has none configured."""
    name = codename()
    try:
        targets = run(["apt-get", "indextargets", "--format", _TARGET_FORMAT]).stdout
        settings = run(["apt-config", "dump"]).stdout
    except ProcessError as error:
        raise Terminal(f"apt does not list its sources: {error}") from error
    lines = source_lines(targets, name, read=lambda path: Path(path).read_text(errors="replace"))
    if not lines:
        raise Terminal(f"apt has no source for Debian {name} main", hint="see /etc/apt/sources.list.d")
    return Sources(name, lines, tuple(line.strip() for line in settings.splitlines() if _KEPT_SETTINGS.fullmatch(line)))


def source_lines(targets: str, suite_name: str, *, read: Callable[[str], str]) -> tuple[str, ...]:
    """Lines of sources.list for the suite and its updates, out of what ``apt-get indextargets`` printed.

    ``read`` gives the text of the file that a source stands in (for its ``Signed-By``).
    """
    suites = {suite_name, f"{suite_name}-updates", f"{suite_name}-security", f"{suite_name}/updates"}
    found: dict[str, None] = {}
    for row in targets.splitlines():
        created_by, uri, suite, component, entry = (row.split("|") + [""] * 5)[:5]
        if created_by != "Packages" or component != "main" or suite not in suites:
            continue
        file, _, number = entry.rpartition(":")
        key = _signed_by(read(file), int(number)) if file and number.isdigit() else ""
        key = key or (str(_KEYRING) if _KEYRING.exists() else "")
        found[f"deb {f'[signed-by={key}] ' if key else ''}{uri} {suite} main"] = None
    return tuple(found)


def _signed_by(text: str, line: int) -> str:
    """The key file of the source that starts in line ``line`` (from 1) of a deb822 or one-line sources file."""
    lines = text.splitlines()
    if not 1 <= line <= len(lines):
        return ""
    if one := re.match(r"\s*deb\s+\[[^]]*signed-by=([^] ]+)", lines[line - 1]):
        return one[1]
    for later in lines[line - 1 :]:
        if not later.strip():
            break
        if found := re.match(r"Signed-By:\s*(/\S+)\s*$", later, re.IGNORECASE):
            return found[1]
    return ""


def bootstrap(sources: Sources, packages: Sequence[str], *, target: Path, on_line: Callable[[str], None]) -> None:
    """Make a configured minimal Debian with ``packages`` in the new folder ``target``. About 40 s."""
    _mmdebstrap("minbase", sources, packages=packages, target=target, on_line=on_line)


def extract(sources: Sources, packages: Sequence[str], *, target: Path, on_line: Callable[[str], None]) -> None:
    """Unpack ``packages`` and what they depend on into the new folder ``target``. About 7 s."""
    _mmdebstrap("extract", sources, packages=packages, target=target, on_line=on_line)


def _mmdebstrap(
    variant: str, sources: Sources, *, packages: Sequence[str], target: Path, on_line: Callable[[str], None]
) -> None:
    # it ends with us, even if we are killed
    words = [
        "setpriv",
        "--pdeathsig",
        "TERM",
        "mmdebstrap",
        "--mode=root",
        f"--variant={variant}",
        "--format=directory",
        f"--include={','.join(packages)}",
    ]
    words += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _SMALL]
    words += ["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright"]
    # the folder is thrown away if we are interrupted: dpkg need not sync every file
    words += ["--dpkgopt=force-unsafe-io", '--aptopt=Acquire::Languages "none"']
    if variant == "extract" and _MERGED_USR.is_dir():
        words += [f"--hook-dir={_MERGED_USR}"]
    words += [f"--aptopt={setting.rstrip(';')}" for setting in sources.settings]
    words += [sources.codename, str(target), *sources.lines]

    def show(line: str) -> None:
        if line.startswith("I: "):
            on_line(line[3:].rstrip("."))

    try:
        stream(words, show, env={"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"})
    except ProcessError as error:
        hint = "is the package mirror reachable?" if shutil.which("mmdebstrap") else "install the package mmdebstrap"
        raise Terminal(f"Debian packages could not be fetched: {error}", hint=hint) from error

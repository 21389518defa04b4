"""The host's Debian packages that moyai needs: which are missing, and getting them without starting what they bring.

Always holds: installing starts no daemon and leaves none enabled (MariaDB, RabbitMQ and HAProxy are run by the local cloud,
in its own namespace, with its own configuration); a package that was there before is not touched. With nothing missing, no
network is used. Whenever moyai is killed, the next ``ensure`` gives the host its own policy-rc.d back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from moyai.core.errors import MoyaiError
from moyai.core.files import naming, rename_durably
from moyai.core.locks import file_lock
from moyai.core.progress import Progress
from moyai.linux.process import ProcessError, run, stream

#: Daemons that these packages would enable at boot.
_DAEMONS = ("mariadb", "rabbitmq-server", "haproxy", "keepalived", "epmd")
_POLICY = Path("/usr/sbin/policy-rc.d")
_MARK = "# Written by moyai while it installs packages"
_OURS = f"""#!/bin/sh
{_MARK}: no package starts a daemon meanwhile. If moyai was killed, the next
# `moyai prepare` removes this file, and puts the host's own, policy-rc.d.before-moyai, back.
exit 101
"""
_LOCK = Path("/run/lock/moyai-packages.lock")
_APT_INSTALL = (
    *("apt-get", "install", "--yes", "--no-install-recommends"),
    *("-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold"),
)
_PROGRESS = re.compile(r"^(Unpacking|Setting up) (\S+)")


def names() -> tuple[str, ...]:
    """The packages of ``data/packages.txt``."""
    text = resources.files("moyai.localcloud").joinpath("data/packages.txt").read_text(encoding="utf-8")
    return tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))


def missing(wanted: Sequence[str]) -> list[str]:
    """Those that dpkg does not hold as installed."""
    listed = run(["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n"]).stdout.splitlines()
    installed = {line.split()[0] for line in listed if line.endswith(" installed")}
    return [name for name in dict.fromkeys(wanted) if name not in installed]


def ensure(step: Progress, *, extra: Sequence[str] = ()) -> list[str]:
    """Install the missing packages of ``names()`` and ``extra``. Returns the installed packages.

    Raises MoyaiError when the package sources do not answer or do not have a package.
    """
    if not missing([*names(), *extra]) and not _left_behind():
        return []
    with file_lock(_LOCK, lambda holder: step.progress(f"waits for {holder}, which installs packages"), waiting=step.waiting):
        put_policy_back()
        # another moyai may have installed them meanwhile
        wanted = missing([*names(), *extra])
        return _install(wanted, step) if wanted else []


def _install(wanted: list[str], step: Progress) -> list[str]:
    environment = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    try:
        step.progress("reading package lists")
        run(["apt-get", "update", "-qq", "-o", "DPkg::Lock::Timeout=300"], env=environment)
        with no_daemon_starts():
            seen = 0

            def show(line: str) -> None:
                nonlocal seen
                if found := _PROGRESS.match(line):
                    seen += 1
                    # each package shows twice; dependencies come on top, so the share stays an estimate below 1
                    step.progress(f"{found[1].lower()} {found[2]}", min(0.95, seen / (6 * len(wanted))))

            stream([*_APT_INSTALL, *wanted], show, env=environment)
    except ProcessError as error:
        raise MoyaiError(
            f"installing Debian packages failed: {error}", hint=f"by hand: apt-get install {' '.join(wanted)}"
        ) from error
    _disable_daemons(wanted)
    return wanted


@contextmanager
def no_daemon_starts(policy: Path = _POLICY) -> Generator[None]:
    """While it lasts, packages' scripts start nothing (invoke-rc.d asks policy-rc.d; 101 means: forbidden)."""
    put_policy_back(policy)
    before, new = _before(policy), _new(policy)
    if os.path.lexists(policy):
        os.link(policy, before, follow_symlinks=False)
    with naming(policy):
        new.write_text(_OURS)
        new.chmod(0o755)
        rename_durably(new, policy)
    try:
        yield
    finally:
        put_policy_back(policy)


def put_policy_back(policy: Path = _POLICY) -> None:
    """Remove a policy-rc.d of ours and restore the one before it; after a kill at any moment, and as often as one likes."""
    before = _before(policy)
    _new(policy).unlink(missing_ok=True)
    if not _left_behind(policy):
        # killed after the host's own was linked, before ours was put in its place
        before.unlink(missing_ok=True)
    elif os.path.lexists(before):
        before.replace(policy)
    else:
        policy.unlink()


def _before(policy: Path) -> Path:
    return policy.with_name(f"{policy.name}.before-moyai")


def _new(policy: Path) -> Path:
    return policy.with_name(f"{policy.name}.new-by-moyai")


def _left_behind(policy: Path = _POLICY) -> bool:
    """Whether policy-rc.d is moyai's."""
    try:
        return not policy.is_symlink() and f"\n{_MARK}" in policy.read_text()
    except (OSError, UnicodeDecodeError):
        return False


def _disable_daemons(installed: Sequence[str]) -> None:
    """Keep daemons that came with packages just installed from starting at the host's next boot."""
    if not Path("/run/systemd/system").is_dir():
        return
    units = [unit for unit in _DAEMONS if unit in installed or f"{unit}-server" in installed or unit == "epmd"]
    if units:
        # a unit that this release does not have is no fault
        run(["systemctl", "disable", "--quiet", *units], check=False)

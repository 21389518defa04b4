"""Which kubectl serves a cluster: the pinned one if it is installed, else the user's own, else the pinned one is got.

Kubernetes supports a kubectl that is at most one minor version older or newer than the API server (its version skew policy).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from moyai.core.errors import MoyaiError
from moyai.core.progress import Reporter
from moyai.linux.process import ProcessError, run
from moyai.toolchain.pins import version_tuple
from moyai.toolchain.toolchain import Toolchain

_PROGRAM = "kubectl"
_SECONDS = 10.0


def find_kubectl(toolchain: Toolchain, *, server: str) -> Path | None:
    """The program if this machine has one that suits. ``server``: the version of the cluster's API server (``1.37.1``)."""
    return toolchain.find_program(_PROGRAM) or _users(server)


def get_kubectl(toolchain: Toolchain, *, server: str, reporter: Reporter) -> Path:
    """The program, got where this machine has none. Raises MoyaiError where none can be got."""
    if found := find_kubectl(toolchain, server=server):
        return found
    try:
        with reporter.step(f"get {_PROGRAM}") as step:
            return toolchain.get_program(_PROGRAM, step)
    except MoyaiError as error:
        major, minor = version_tuple(server)[:2]
        first, last = f"{major}.{max(0, minor - 1)}", f"{major}.{minor + 1}"
        hint = f"with a kubectl of version {first} to {last} on the PATH it is not needed"
        raise MoyaiError(str(error), hint=hint) from error


def _users(server: str) -> Path | None:
    """The first kubectl of the PATH that suits the server; folders that may not be read are passed over."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        program = shutil.which(_PROGRAM, path=folder) if folder else None
        if program and _suits(_version(program), server):
            return Path(program)
    return None


def _suits(version: str, server: str) -> bool:
    own, other = version_tuple(version), version_tuple(server)
    return len(own) > 1 and own[0] == other[0] and abs(own[1] - other[1]) <= 1


def _version(program: str) -> str:
    """Its version, empty where it does not say."""
    try:
        # without a PATH: a script of this name that calls `moyai kubectl` must not end up here again
        said = run([program, "version", "--client", "--output=json"], env={"PATH": ""}, timeout=_SECONDS).stdout
        return str(json.loads(said)["clientVersion"]["gitVersion"]).removeprefix("v")
    except (ProcessError, ValueError, KeyError, TypeError):
        return ""

"""Where moyai keeps things, by the XDG base directory specification.

``cache`` may be deleted at any time and is made again; ``state`` may not: it holds clusters' records, keys and the
local cloud. ``MOYAI_CACHE_DIR`` and ``MOYAI_STATE_DIR`` move them (tests do). Both should be on one file system:
machines hard-link image content.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from moyai.core.files import naming


@dataclass(frozen=True)
class Paths:
    cache: Path
    state: Path

    @property
    def toolchain(self) -> Path:
        """Built or fetched components, one folder a component and version."""
        return self.cache / "toolchain"

    @property
    def images(self) -> Path:
        """OCI archives and node images, named by what went into them."""
        return self.cache / "images"

    @property
    def openstack_env(self) -> Path:
        """OpenStack's own Python environment."""
        return self.cache / "openstack"

    @property
    def clusters(self) -> Path:
        """One folder a cluster: record, keys, kubeconfig."""
        return self.state / "clusters"

    def cloud(self, name: str) -> Path:
        """The folder of the local cloud ``name``."""
        return self.state / "clouds" / name

    def make_state(self, name: str) -> Path:
        """The folder ``name`` of the state folder, made if need be; nobody but its owner enters either of them.

        A state folder that existed before and that MOYAI_STATE_DIR names keeps its mode: it may be anything, ``/tmp`` too.
        """
        ours = self.state == default_paths({**os.environ, "MOYAI_STATE_DIR": ""}).state or not self.state.exists()
        folder = self.state / name
        with naming(folder):
            self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.mkdir(exist_ok=True, mode=0o700)
        for one in (folder, self.state) if ours else (folder,):
            status = one.stat()
            if status.st_uid == os.geteuid() and status.st_mode & 0o077:
                one.chmod(0o700)
        return folder


def home_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """This user's, by ``HOME``, else by the system's list of users. Who is not in it gets the folder that never exists."""
    if home := environ.get("HOME"):
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return Path("/nonexistent")


def default_paths(environ: Mapping[str, str] = os.environ) -> Paths:
    """The folders for this user, from the environment."""
    home = home_folder(environ)
    cache = environ.get("MOYAI_CACHE_DIR") or Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "moyai"
    state = environ.get("MOYAI_STATE_DIR") or Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "moyai"
    return Paths(cache=Path(cache), state=Path(state))

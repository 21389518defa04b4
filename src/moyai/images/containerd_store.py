"""A containerd store that contains images before any machine runs. The same containerd as on the nodes creates it.

Images are unpacked. They are marked as managed and as pinned, so no kubelet deletes them: a node could not fetch them again.
Packed layers are dropped. containerd runs only during the import, with a separate root and socket and without its CRI part.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import Terminal
from moyai.core.waiting import NotYet, until
from moyai.images.cache import remove
from moyai.linux.background import background
from moyai.linux.process import ProcessError, run
from moyai.toolchain import Component

#: Plugins that an import does not need, or that would create folders on this host.
_DISABLED = (
    "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri",
    "io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.native",
    "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
)  # fmt: skip

_CONFIG = """version = 3
root = '{root}'
state = '{state}'
disabled_plugins = {disabled}
[grpc]
address = '{state}/containerd.sock'
[plugins.'io.containerd.metadata.v1.bolt']
# a store that is not finished is thrown away, so nothing needs to be on disk at once
no_sync = true
[ttrpc]
address = '{state}/containerd.sock.ttrpc'
"""

#: A container store's server answers within a second; a busy machine takes longer.
_START_SECONDS = 60.0
_LABELS = ("io.cri-containerd.image=managed", "io.cri-containerd.pinned=pinned")


def import_images(containerd: Component, root: Path, *, archives: Sequence[Path], clock: Clock | None = None) -> None:
    """Import docker archives into the store at ``root`` (made if it is not there). Raises Terminal with containerd's words."""
    clock = clock or SystemClock()
    root.mkdir(parents=True, exist_ok=True)
    # a socket's path may have only about 100 characters, so it is not below the cache
    with tempfile.TemporaryDirectory(prefix="moyai-store-") as state:
        config = Path(state) / "config.toml"
        config.write_text(_CONFIG.format(root=root, state=state, disabled=list(_DISABLED)))
        socket = Path(state) / "containerd.sock"
        try:
            log = Path(state) / "log"
            with background([str(containerd.files["containerd"]), "--config", str(config)], log) as daemon:
                ctr = [str(containerd.files["ctr"]), "--address", str(socket), "--namespace", "k8s.io"]

                def answers() -> bool | NotYet:
                    daemon.check()
                    # the socket exists before the server answers on it
                    ready = socket.exists() and run([*ctr, "version"], check=False).returncode == 0
                    return ready or NotYet("containerd to answer")

                until(answers, clock=clock, timeout=_START_SECONDS, pause=0.05)
                for archive in archives:
                    _import(ctr, archive)
                run([*ctr, "content", "prune", "references"])
        except ProcessError as error:
            raise Terminal(f"images cannot be put into a store: {error}") from error
    # the identity of this containerd is not that of the machines
    remove(root / "io.containerd.grpc.v1.introspection")


def _import(ctr: Sequence[str], archive: Path) -> None:
    labels = [word for label in _LABELS for word in ("--label", label)]
    # --local: by the client itself, which alone knows labels
    run([*ctr, "images", "import", "--local", *labels, str(archive)])

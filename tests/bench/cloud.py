"""The local cloud of the benchmarks, and what it takes to start it: from nothing, from a snapshot; and to end it."""

from __future__ import annotations

from pathlib import Path

from moyai.cli import prepare
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.images import node_image
from moyai.images.node_image import NodeImage
from moyai.localcloud import database_image, env
from moyai.localcloud import start_stop as local
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig
from moyai.toolchain import Toolchain

CONFIG = LocalCloudConfig(name="bench", management_cidr="10.252.0.0/24", external_cidr="10.251.0.0/24")


class BenchCloud:
    """The cloud ``bench``; ``reporter`` gets its steps. It is gone after ``remove``, whatever happened before."""

    def __init__(self, paths: Paths, reporter: Reporter) -> None:
        self.paths, self.reporter = paths, reporter
        self.folders = CloudPaths(paths.cloud(CONFIG.name))

    def components(self) -> NodeImage:
        """Everything that is got or built once and kept, so that nothing of it is in a measurement. Returns the node image."""
        prepare.ensure_everything(self.paths, self.reporter)
        return node_image.ensure(Toolchain(self.paths, self.reporter), self.paths, reporter=self.reporter)

    def start(self, *, from_nothing: bool) -> dict[str, float]:
        """Start it; phase → seconds. Without ``from_nothing`` there must be a snapshot, and it is what is measured."""
        store, key = database_image.DatabaseImages(self.paths), self._key()
        if from_nothing:
            store.remove(key)
        elif not store.exists(key):
            raise RuntimeError("there is no snapshot of the benchmarks' cloud")
        reporter = Reporter(self.reporter.emit)
        with reporter.step("whole"):
            local.up(CONFIG, self.paths, reporter=reporter, registry=self._registry())
        return reporter.timings

    def have_snapshot(self) -> bool:
        return database_image.DatabaseImages(self.paths).exists(self._key())

    def base(self) -> float:
        """Node image and nginx into it, unpacked on the hypervisors; seconds."""
        reporter = Reporter(self.reporter.emit)
        with reporter.step("base"):
            prepare.ensure_cluster_base(CONFIG.name, self.paths, reporter=reporter, config=CONFIG)
        return reporter.timings["base"]

    def stop(self) -> float:
        """End it and delete what it holds; seconds. RuntimeError when anything is left on the host."""
        reporter = Reporter(self.reporter.emit)
        with reporter.step("down"):
            left = local.down(CONFIG, self.paths, reporter=reporter)
        if left:
            raise RuntimeError(f"the benchmarks' cloud left {'; '.join(left)}")
        return reporter.timings["down"]

    def remove(self) -> None:
        """The cloud with all that is in it, and its snapshot."""
        key = self._key()
        if self.folders.root.exists():
            self.stop()
        database_image.DatabaseImages(self.paths).remove(key)

    def _key(self) -> str:
        return database_image.key(CONFIG, env.ensure(self.paths), paths=self.folders)

    def _registry(self) -> Path:
        return Toolchain(self.paths, Reporter()).ensure(["registry"])["registry"].files["registry"]

"""The cluster for Kubernetes' own tests, on a local cloud of its own, with the tests' images in the cloud's registry."""

from __future__ import annotations

import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from moyai.cli import prepare
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.core.reading import read_mapping
from moyai.images.registry import Registry
from moyai.linux.process import run
from moyai.localcloud import start_stop as local
from moyai.localcloud.layout import PORTS, CloudPaths, LocalCloudConfig
from moyai.toolchain import Toolchain
from tests.conformance.ginkgo import Target
from tests.conformance.parts import HERE

CONFIG = LocalCloudConfig(name="conformance", management_cidr="10.224.0.0/24", external_cidr="10.224.1.0/24")
SPEC = HERE / "cluster.yaml"
_MOYAI = [sys.executable, "-c", "from moyai.cli.main import main; main()"]
#: Of the components, the parts of the cluster that the results depend on.
_NAMED = ("kubernetes", "etcd", "coredns", "containerd", "runc", "cni-plugins")


def load_images(archive: Path, config: LocalCloudConfig, *, say: Callable[[str], None] = lambda _: None) -> None:
    """Put the images of the tests into the registry of a local cloud."""
    Registry(f"http://{config.address}:{PORTS['registry']}").push(archive, say)


@dataclass(frozen=True)
class Site:
    """The cloud and the cluster. Both go on where an interrupted run left them."""

    paths: Paths
    reporter: Reporter

    def start(self) -> Target:
        """Cloud, images and cluster, as far as they are missing."""
        archive = prepare.ensure_e2e_images(self.paths, self.reporter)
        config = local.recorded(CloudPaths(self.paths.cloud(CONFIG.name))) or CONFIG
        prepare.ensure_cluster_base(config.name, self.paths, reporter=self.reporter, config=config)
        with self.reporter.step("the tests' images into the registry") as step:
            load_images(archive, config, say=step.progress)
        self._moyai("up", str(SPEC))
        return Target(self.paths.clusters / cluster_name() / "kubeconfig", workers())

    def end(self) -> None:
        """The cluster and the cloud go; RuntimeError where anything stays on the host."""
        if (self.paths.clusters / cluster_name()).exists():
            self._moyai("down", cluster_name(), "--yes")
        if left := local.down(CONFIG, self.paths, reporter=self.reporter):
            raise RuntimeError(f"the cloud left {'; '.join(left)}")

    def _moyai(self, *words: str) -> None:
        # its progress is the user's to see
        subprocess.run([*_MOYAI, *words], check=True, stdin=subprocess.DEVNULL)


def cluster_name() -> str:
    """The name in the cluster's spec."""
    return read_mapping(SPEC, should="a cluster spec")["metadata"]["name"]


def workers() -> int:
    """How many workers the cluster's spec has."""
    return sum(pool["replicas"] for pool in read_mapping(SPEC, should="a cluster spec")["spec"]["nodePools"])


def versions(paths: Paths) -> Mapping[str, str]:
    """What the results depend on: name → version."""
    chain = Toolchain(paths, Reporter())
    return {
        **{name: chain.version(name) for name in _NAMED},
        "Debian": platform.freedesktop_os_release().get("VERSION_ID", ""),
        "Linux": platform.release(),
        "cgroup": "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1",
    }


def commit() -> str:
    """The commit of moyai, with ``+`` where files differ from it."""
    short = run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE).stdout.strip()
    changed = run(["git", "status", "--porcelain", "--", "src"], cwd=HERE.parents[1]).stdout.strip()
    return f"{short}{'+' if changed else ''}"


def lacks(capability: str) -> bool:
    """Whether this process lacks a capability of Linux (``CAP_SYS_RESOURCE``), or its kernel a protocol (``SCTP``)."""
    if capability == "SCTP":
        try:
            socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
        except OSError:
            return True
        return False
    number = {"CAP_SYS_RESOURCE": 24}[capability]
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return not int(line.split()[1], 16) >> number & 1

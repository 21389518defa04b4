"""The node image as a disk, on an emulated hypervisor: `make test-image`.

The disk is what `moyai image build` makes. The config drive has the user data that `moyai up` gives to a control plane.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moyai.bootstrap import pki
from moyai.cli.node_images import description_of
from moyai.core.clock import SystemClock
from moyai.core.graph import run_graph
from moyai.core.paths import default_paths
from moyai.core.progress import Event, Reporter
from moyai.images import node_image
from moyai.images.cache import Cache
from moyai.images.disk import disk_image
from moyai.images.disk.disk_image import DiskFacts, DiskImage
from moyai.images.disk.disk_tools import DiskTools, disk_tools
from moyai.plan.nodes import PlannedNode, wanted_nodes
from moyai.spec.load import parse
from moyai.toolchain import Toolchain
from tests.bare_machines import BareCluster
from tests.host import disk_vm
from tests.host.disk_vm import DiskGuest

#: Minutes on an idle machine; emulation shares the processors with whatever else runs.
_SECONDS = 780
_KUBECTL = "kubectl --kubeconfig /etc/kubernetes/admin.conf"
_UNITS = "systemctl is-failed --quiet kubelet containerd machine-prep systemd-networkd systemd-modules-load || echo well"


@pytest.fixture(scope="module")
def cache() -> Cache:
    return Cache(default_paths().images)


@pytest.fixture(scope="module")
def tools(cache: Cache) -> DiskTools:
    return disk_tools(cache, lambda _line: None)


@pytest.fixture(scope="module")
def image() -> DiskImage:
    """The image of this source, or the file in MOYAI_TEST_DISK, which `moyai image build` has made."""
    if built := os.environ.get("MOYAI_TEST_DISK"):
        facts = DiskFacts(**json.loads(description_of(Path(built)).read_text()))
        return DiskImage(Path(built), "qcow2", facts)
    paths, reporter = default_paths(), Reporter(_show)
    graph = [*Toolchain(paths, reporter).tasks(node_image.components()), *node_image.tasks(paths)]
    graph += disk_image.tasks(paths, form="qcow2")
    result: DiskImage = run_graph(graph, reporter, workers=len(graph))[disk_image.DISK]
    return result


def test_a_control_plane_by_the_bios(image: DiskImage, tools: DiskTools, cache: Cache, *, tmp_path: Path) -> None:
    """From power-on to a node that is Ready, and nothing is fetched: the machine's network leads nowhere."""
    told, node = _cluster(tmp_path)
    disk = disk_vm.disk(image, tools, folder=tmp_path)
    drive = disk_vm.config_drive(
        cache,
        tmp_path,
        name=node.name,
        user_data=told.user_data(node),
        meta={"moyai.role": node.role, **told.metadata(node)},
        address=node.address,
    )
    began = time.monotonic()
    with disk_vm.running(disk, drive, folder=tmp_path, address=node.address) as guest:
        _wait(guest, lambda: "moyai: bootstrap done" in guest.said, began=began)
        _say(f"  bootstrap done at {time.monotonic() - began:.0f} s")
        _wait(guest, lambda: _ready(guest.ssh(f"{_KUBECTL} get node -o json").stdout, node.name), began=began)
        _say(f"  node Ready at {time.monotonic() - began:.0f} s")
        assert guest.ssh("test ! -e /sys/firmware/efi && echo bios").stdout == "bios\n"
        assert guest.ssh("hostname").stdout.strip() == node.name
        assert "well" in guest.ssh(_UNITS).stdout
        # the root has the whole disk
        size = int(guest.ssh("df --output=size -B1 / | tail -n 1").stdout)
        assert size > 11 << 30
        # every pod runs from images that were inside
        pods = json.loads(guest.ssh(f"{_KUBECTL} get pods -A -o json").stdout)["items"]
        phases = {pod["metadata"]["name"]: pod["status"]["phase"] for pod in pods}
        planes = {name: phase for name, phase in phases.items() if name.endswith(node.name)}
        assert set(planes.values()) == {"Running"}, planes
        assert len(planes) == 4
        # the key that opened the control plane's secrets is in no copy of the config drive that a user of the machine can read
        held = guest.ssh(f"grep -rl -e {told.key} /run/cloud-init /var/lib/cloud || true").stdout
        assert held == ""


def test_uefi_with_secure_boot(image: DiskImage, tools: DiskTools, cache: Cache, *, tmp_path: Path) -> None:
    disk = disk_vm.disk(image, tools, folder=tmp_path)
    drive = disk_vm.config_drive(cache, tmp_path, name="try", user_data="", meta={}, address="10.8.0.10")
    began = time.monotonic()
    with disk_vm.running(disk, drive, folder=tmp_path, address="10.8.0.10", secure_boot=True) as guest:
        _wait(guest, lambda: "try login:" in guest.said, began=began)
        _say(f"  login at {time.monotonic() - began:.0f} s")
        assert "secureboot: Secure boot enabled" in guest.said
        assert "EFI stub: UEFI Secure Boot is enabled." in guest.said


def _cluster(folder: Path) -> tuple[BareCluster, PlannedNode]:
    cluster = parse("{apiVersion: moyai.dev/v1alpha1, kind: Cluster, metadata: {name: try}, spec: {nodePools: []}}")
    nodes = wanted_nodes(cluster, zones=["az1"], allocations={})
    return BareCluster(cluster, nodes, pki.ensure(folder / "pki", SystemClock())), nodes[0]


def _ready(answer: str, name: str) -> bool:
    if not answer:
        return False
    conditions = {
        node["metadata"]["name"]: {one["type"]: one["status"] for one in node["status"].get("conditions", [])}
        for node in json.loads(answer)["items"]
    }
    return conditions.get(name, {}).get("Ready") == "True"


def _wait(guest: DiskGuest, done: Callable[[], bool], *, began: float) -> None:
    while not done():
        assert guest.process.poll() is None, guest.said[-3000:]
        if time.monotonic() - began > _SECONDS:
            journal = guest.ssh("journalctl --no-pager -n 60 -u kubelet -u containerd; df -h /")
            raise AssertionError(f"{guest.said[-2000:]}\n{journal.stdout}{journal.stderr}")
        time.sleep(1)


def _say(text: str) -> None:
    print(text, flush=True)


def _show(event: Event) -> None:
    if event.kind in ("started", "failed", "note"):
        _say(f"{event.kind} {event.step} {event.detail}")

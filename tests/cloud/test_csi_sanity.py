"""csi-sanity against the real Cinder and Nova of a local cloud, with the node service in one of its machines.

The machine is a node as a cluster has it, without Kubernetes: the node service is a container of moyai's image, with the mounts
of the DaemonSet; csi-sanity runs beside it and so makes its targets where the kubelet would. The controller service is in the
test's process, as the cloud's ordinary user; its socket lies in the machine's kubelet folder, which is a folder of the host.

Volumes are mounted here; the suite with raw ones is run on loop devices (tests/netns), and clusters' pods use both (tests/e2e).
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.openstack import ADAPTER, OpenStackCloud, connect
from moyai.core.ids import CLUSTER_TAG, new_uid
from moyai.csi.app import CsiOptions, Driver
from moyai.csi.settings import BlockStorageConfig, CsiConfig, DriverConfig
from moyai.images.references import MOYAI
from tests import csi_sanity, sdk
from tests.cloud.server_site import Site, site

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="looks into the cloud's namespaces"),
    *sdk.DEPRECATIONS,
]

#: In the machine: what the kubelet has, and the sockets.
KUBELET = "/var/lib/kubelet"
FOLDER = f"{KUBELET}/sanity"
NODE, CONTROLLER = f"{FOLDER}/node.sock", f"{FOLDER}/controller.sock"
#: Where the suite makes its targets.
PLACES = f"{FOLDER}/places"
LIMIT = 3
GIB = 1 << 30


@pytest.fixture(scope="module")
def place(cloud_name: str) -> Iterator[Site]:
    with site(cloud_name) as made:
        yield made


@pytest.fixture(scope="module")
def machine(place: Site) -> Iterator[Any]:
    """A server in whose machine the node service runs."""
    (server,) = place.active(place.boot("node", flavor="m1.small"))
    place.booted(server)
    place.sh(server, f"mkdir -p {FOLDER}")
    shutil.copy(csi_sanity.binary(), outside(place, server) / "csi-sanity")
    mounts = (
        f"type=bind,src={KUBELET},dst={KUBELET},options=rbind:rshared:rw",
        "type=bind,src=/dev,dst=/dev,options=rbind:rslave:rw",
        "type=bind,src=/run/cloud-init,dst=/run/cloud-init,options=rbind:ro",
    )
    flags = " ".join(f"--mount {one}" for one in mounts)
    driver = f"moyai csi --endpoint=unix://{NODE} --provide-controller-service=false --node-volume-attach-limit={LIMIT}"
    container = f"ctr -n k8s.io run --rm --privileged --net-host {flags} {MOYAI} csi-node {driver}"
    place.sh(server, f"systemctl start containerd && systemd-run --quiet --unit=csi-node {container}")
    try:
        # on the machine itself: entering it for each look costs more than the look
        place.sh(server, f"timeout 50 sh -c 'until test -S {NODE}; do sleep 0.2; done'")
        yield server
    finally:
        print(place.sh(server, "journalctl --no-pager -u csi-node", check=False))


def outside(place: Site, server: Any) -> Path:
    """The test's folder in the machine, as the host has it."""
    return place.machine(server) / "kubelet" / "sanity"


@pytest.fixture(scope="module")
def provider(cloud_name: str) -> OpenStackCloud:
    return connect(cloud_name)


async def test_the_suite_passes_whole(place: Site, machine: Any, provider: OpenStackCloud, tmp_path: Path) -> None:
    uid, folder = new_uid(), outside(place, machine)
    # the folder's own name is longer than a socket's may be
    short = tmp_path / "f"
    short.symlink_to(folder)
    storage = BlockStorageConfig(node_volume_attach_limit=LIMIT)
    config = CsiConfig(ADAPTER.read_login({}), storage, DriverConfig(cluster_uid=uid))
    driver = Driver(
        CsiOptions(endpoint=f"unix://{short / 'controller.sock'}", cluster="sanity", node=False),
        config,
        adapter=ADAPTER,
        cloud=provider,
    )
    words = csi_sanity.words(
        f"{FOLDER}/csi-sanity",
        endpoint=f"unix://{NODE}",
        controller=f"unix://{CONTROLLER}",
        folder=PLACES,
        size=GIB,
        kind="mount",
        report=f"{FOLDER}/report.json",
        attributes=f"{PLACES}/attributes.yaml",
    )
    place.sh(machine, f"mkdir -p {PLACES} && echo '{csi_sanity.ATTRIBUTES}' > {PLACES}/attributes.yaml")
    stop = asyncio.Event()
    serving = asyncio.create_task(driver.run(stop))
    try:
        done = await asyncio.to_thread(place.run, machine, " ".join(words), timeout=600)
    finally:
        stop.set()
        assert await serving
    specs = csi_sanity.read((folder / "report.json").read_text())
    csi_sanity.check_whole(specs, code=done.returncode, text=done.stdout)
    assert provider.disks.volumes(metadata={CLUSTER_TAG: uid}) == []
    assert KUBELET not in place.sh(machine, f"grep {PLACES} /proc/mounts || true")

"""A disk outlives the loss of its Node object: what the machine still has mounted of it does not keep it from coming back."""

from __future__ import annotations

import json
from typing import Any

from moyai.cloud.openstack import ADAPTER
from tests.cloud.server_site import Site
from tests.e2e.disks import until
from tests.e2e.space import Space

NAMES = ADAPTER.volume_names


def test_a_disk_whose_node_object_was_deleted_is_mounted_there_again(space: Space, cloud_name: str) -> None:
    cluster, cloud = space.cluster, space.cluster.cloud
    nodes = [one["metadata"] for one in cluster.get("nodes")["items"]]
    node = next(one["name"] for one in nodes if "node-role.kubernetes.io/control-plane" not in one["labels"])
    server = next(one for one in cloud.machines.servers() if one.name == node)
    site = Site(cloud_name, None, None)

    def mounted() -> str:
        return site.sh(server, f"grep plugins/kubernetes.io/csi/{NAMES.driver}/ /proc/self/mountinfo | cut -d' ' -f5 || true")

    def ready() -> bool:
        found = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
        states = {one["metadata"]["name"]: one["status"].get("conditions", []) for one in found}
        return any(one["type"] == "Ready" and one["status"] == "True" for one in states.get(node, []))

    where: dict[str, Any] = {"nodeSelector": {"kubernetes.io/hostname": node}}
    space.apply(space.claim("data"), space.pod("first", **where))
    space.ready("first")
    space.store("first", "kept")
    volume = space.volume_of("data")
    cluster.kubectl("delete", "node", node)
    try:

        def drivers() -> list[str]:
            pods = cluster.get("pods", "-n", "kube-system", "-l", f"app={NAMES.node}")["items"]
            return [one["metadata"]["name"] for one in pods if one["spec"].get("nodeName") == node]

        until("the driver's pod is gone with the Node", lambda: not drivers(), within=180)
        if server.id in cloud.disks.volume(volume).attached_server_ids:
            # what Kubernetes does by itself, minutes later
            cloud.machines.detach_volume(server.id, volume)
        until("the cloud has the disk back", lambda: not cloud.disks.volume(volume).attached_server_ids, within=400)
        left = mounted()
        print(f"\nleft on the machine: {left or 'nothing'}")
    finally:
        # a kubelet registers its Node when it starts, and at no other time
        site.sh(server, "systemctl restart kubelet")
        until("the Node is there again", ready, within=240)
    space.apply(space.pod("again", **where))
    space.ready("again", seconds=300)
    assert space.load("again") == "kept"
    assert server.id in cloud.disks.volume(volume).attached_server_ids

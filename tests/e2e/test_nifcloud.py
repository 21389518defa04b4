"""`examples/nifcloud-ha` on a local cloud that speaks NIFCLOUD: the cluster over three zones, and two stories of its user.

A web server is reached by a load balancer of the accounting type that its Service names. A claim of 10Gi becomes a disk of
100 GiB, keeps its data over its pod's restart and a drain within the zone, waits while its zone has no node left, and runs
again after that. `down` leaves nothing, by the ledger of the cloud that answered.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import yaml

from moyai.cloud.openstack import connect
from moyai.localcloud.clouds_yaml import user_file
from moyai.localcloud.layout import LocalCloudConfig
from moyai.localcloud.nifcloud_access import user_file as access_file
from tests.conftest import running_cloud
from tests.e2e.disks import until
from tests.e2e.driver import MOYAI, ROOT, Cluster, said
from tests.nifcloud_sdk import client

pytestmark = pytest.mark.long

CLOUD = LocalCloudConfig(
    name="nif", management_cidr="10.250.0.0/24", external_cidr="10.249.0.0/24", zones=("az1", "az2", "az3")
)
ZONES = ("east-11", "east-12", "east-13")
#: Of the cluster's own network, which is one over three zones by a private bridge.
NODES = "10.8.0.0/24"
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}},
}
#: Counts its starts in a file on the disk, and prints the count.
COUNTS = "n=$(cat /data/starts 2>/dev/null || echo 0); echo $((n+1)) > /data/starts; sync; cat /data/starts; exec sleep 100000"
DATABASE = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "db"},
    "spec": {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": {"app": "db"}},
        "template": {
            "metadata": {"labels": {"app": "db"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "nodeSelector": {"topology.kubernetes.io/zone": ZONES[0]},
                "containers": [
                    {
                        "name": "db",
                        "image": "nginx",
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sh", "-c", COUNTS],
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }
                ],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            },
        },
    },
}


class OnNifcloud(Cluster):
    """The example with an access key of the local cloud; four nodes, so that the first zone has two."""

    def __init__(self, folder: Path, access: dict[str, str]) -> None:
        self.access = access
        super().__init__(folder, CLOUD.name)

    def write(self, workers: int) -> None:
        example = yaml.safe_load((ROOT / "examples/nifcloud-ha/cluster.yaml").read_text())
        example["metadata"]["name"] = self.name
        where = {"endpointURL": self.access["NIFCLOUD_ENDPOINT"], "ca": self.access["NIFCLOUD_CA_FILE"]}
        example["spec"]["cloud"]["nifcloud"] |= where
        example["spec"]["nodePools"][0]["replicas"] = 4
        (self.folder / "cluster.yaml").write_text(json.dumps(example))

    @property
    def cloud_calls(self) -> Any:
        key, secret = self.access["NIFCLOUD_ACCESS_KEY_ID"], self.access["NIFCLOUD_SECRET_ACCESS_KEY"]
        return client(self.access["NIFCLOUD_ENDPOINT"], key=key, secret=secret, verify=self.access["NIFCLOUD_CA_FILE"])

    def ledger(self) -> set[str]:
        """Kinds and ids that were made and have not gone."""
        left = dict[str, str]()
        for line in self.moyai("cloud", "nifcloud", "ledger", "--name", CLOUD.name).stdout.splitlines():
            _at, verb, kind, uid, *_name = line.split()
            left[f"{kind} {uid}"] = verb
        return {one for one, verb in left.items() if verb == "made"}

    def database(self) -> tuple[str, str]:
        """The node of the running pod, and how often it started; empty for no running pod."""
        pods = json.loads(self.kubectl("get", "pods", "-l", "app=db", "-o", "json"))["items"]
        running = [one for one in pods if one["status"]["phase"] == "Running" and "deletionTimestamp" not in one["metadata"]]
        if len(running) != 1:
            return "", ""
        return running[0]["spec"]["nodeName"], self.kubectl("logs", running[0]["metadata"]["name"]).strip()

    def explained(self, pod: str) -> str:
        """What `moyai explain` says of the pod; empty as long as it does not name the zone."""
        text = self.moyai("explain", pod).stdout
        return text if ZONES[0] in text else ""

    def started(self, times: int) -> str:
        """Waits until the pod has started so often; returns its node."""
        return until(f"start {times}", lambda: (seen := self.database())[1] == str(times) and seen[0], within=240)


@pytest.fixture(scope="module")
def access() -> Generator[dict[str, str]]:
    with running_cloud(CLOUD) as name:
        for words in (["up", "--name", name, "--nifcloud"], ["nifcloud", "bridge", "--name", name, NODES]):
            done = subprocess.run([*MOYAI, "cloud", *words], capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, said("moyai cloud", words, done)
        lines = shlex.split(access_file(user_file(), CLOUD).read_text(), comments=True)
        found = dict(line.split("=", 1) for line in lines if "=" in line)
        yield found


@pytest.fixture(scope="module")
def cluster(access: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Generator[OnNifcloud]:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in access.items():
            environment.setenv(name, value)
        made = OnNifcloud(tmp_path_factory.mktemp("nifcloud"), access)
        before = made.ledger()
        try:
            made.up()
            yield made
        finally:
            made.moyai("down", made.name, "--yes")
        assert made.ledger() == before
        assert [one.name for one in connect(CLOUD.name).machines.servers() if made.name in one.name] == []


def test_three_control_planes_and_the_nodes_are_spread_over_three_zones(cluster: OnNifcloud) -> None:
    nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    zones = {one["metadata"]["name"]: one["metadata"]["labels"]["topology.kubernetes.io/zone"] for one in nodes}
    assert sorted(zone for name, zone in zones.items() if "control-plane" in name) == list(ZONES)
    assert sorted(zone for name, zone in zones.items() if "control-plane" not in name) == [ZONES[0], *ZONES]
    assert all(one["spec"]["providerID"].startswith("nifcloud:///") for one in nodes)
    assert cluster.status()["problems"] == []
    assert "nothing to do" in cluster.moyai("plan", str(cluster.folder / "cluster.yaml")).stdout


def test_a_web_server_is_reached_by_a_load_balancer_of_its_accounting_type(cluster: OnNifcloud) -> None:
    cluster.kubectl("apply", "-f", str(ROOT / "examples/nifcloud-ha/web.yaml"))
    path = "jsonpath={.status.loadBalancer.ingress[0].ip}"
    address = until("an address", lambda: cluster.kubectl("get", "service", "web", "-o", path), within=180)
    curl = ["curl", "-s", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}/"]
    until(
        "the web server",
        lambda: subprocess.run(curl, capture_output=True, text=True, check=False).stdout == "200",
        within=120,
    )
    answer = cluster.cloud_calls.describe_load_balancers()["DescribeLoadBalancersResult"]["LoadBalancerDescriptions"]
    (found,) = (one for one in answer if one["DNSName"] == address)
    assert str(found["AccountingType"]) == "2"
    cluster.kubectl("delete", "-f", str(ROOT / "examples/nifcloud-ha/web.yaml"))
    gone = cluster.cloud_calls.describe_load_balancers
    until(
        "the balancer's end",
        lambda: address not in [one["DNSName"] for one in gone()["DescribeLoadBalancersResult"]["LoadBalancerDescriptions"]],
        within=120,
    )


def test_a_claim_keeps_its_data_and_waits_for_a_node_of_its_zone(cluster: OnNifcloud) -> None:
    cluster.apply(CLAIM, DATABASE)
    first = cluster.started(1)
    claim = json.loads(cluster.kubectl("get", "pvc", "data", "-o", "json"))
    assert claim["status"]["capacity"]["storage"] == "100Gi"
    cluster.kubectl("rollout", "restart", "deployment/db")
    first = cluster.started(2)
    drain = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s")
    cluster.kubectl("drain", first, *drain)
    try:
        second = cluster.started(3)
        assert second != first
        cluster.kubectl("drain", second, *drain)
        try:
            wanted = "jsonpath={.items[0].metadata.name} {.items[0].status.phase}"
            waits = until(
                "the pod to wait",
                lambda: (said := cluster.kubectl("get", "pods", "-l", "app=db", "-o", wanted)).endswith("Pending") and said,
                within=60,
            )
            pod = waits.split()[0]
            explained = until("a reason", lambda: cluster.explained(pod), within=60)
            assert "cordon" in explained or "unschedulable" in explained, explained
        finally:
            cluster.kubectl("uncordon", second)
        assert cluster.started(4) == second
    finally:
        cluster.kubectl("uncordon", first)
    cluster.kubectl("delete", "deployment/db", "pvc/data", "--timeout=120s")
    until("the disk's end", lambda: not cluster.cloud_calls.describe_volumes()["VolumeSet"], within=120)

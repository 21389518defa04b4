"""The local cloud and the cluster that the comparisons run on; gone afterwards.

``MOYAI_TEST_CLOUD`` names a running cloud to use instead (an entry of clouds.yaml), which then is left as it is.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openstack

from moyai.cli import prepare
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.lifecycle.record import Record
from moyai.localcloud import start_stop as local
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig
from moyai.plan import keys
from tests.bench.cluster import CommandFailed, command
from tests.peers.controllers import Controllers

CONFIG = LocalCloudConfig(name="peers", management_cidr="10.250.0.0/24", external_cidr="10.249.0.0/24")
CLUSTER = "peers"
#: Fifty Services need more of these than a user of this cloud has: an address each, and with the other controller a group each.
_QUOTAS = {"security_groups": 200, "security_group_rules": 4000, "floating_ips": 200}


@contextmanager
def cloud(reporter: Reporter) -> Generator[str]:
    """The name of a running cloud with the node image in it. RuntimeError when anything of it is left on the host."""
    if given := os.environ.get("MOYAI_TEST_CLOUD"):
        yield given
        return
    paths = default_paths()
    recorded = local.recorded(CloudPaths(paths.cloud(CONFIG.name)))
    prepare.ensure_cluster_base(CONFIG.name, paths, reporter=reporter, config=recorded or CONFIG)
    try:
        yield CONFIG.name
    finally:
        left = local.down(CONFIG, paths, reporter=reporter)
    if left:
        raise RuntimeError(f"the cloud left {'; '.join(left)}")


@contextmanager
def cluster(cloud_name: str, reporter: Reporter) -> Generator[Controllers]:
    """A cluster without workloads (one control plane, two workers), where both controllers are installed and moyai's runs."""
    paths = default_paths()
    kubeconfig = paths.clusters / CLUSTER / "kubeconfig"
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="moyai-peers-")))
        controllers = Controllers(reporter, kubeconfig=kubeconfig, cloud=cloud_name)
        command("image", "load", str(controllers.archive(folder)), "--cloud", cloud_name)
        spec = folder / "cluster.yaml"
        spec.write_text(
            f"apiVersion: moyai.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: {CLUSTER}}}\nspec: {{cloud: {cloud_name}}}\n"
        )
        undo.callback(_remove)
        command("up", str(spec))
        record = Record.open(paths, CLUSTER)
        assert record is not None
        admin: Any = openstack.connect(cloud=f"{cloud_name}-admin")
        admin.network.update_quota(admin.identity.find_project("demo", ignore_missing=False).id, **_QUOTAS)
        words = ("get", "nodes", "-l", "node-role.kubernetes.io/control-plane", "-o")
        address = controllers.kubectl(*words, "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}")
        controllers.install(
            cluster=CLUSTER,
            api_server=f"{address}:6443",
            network_id=admin.network.find_network("public", ignore_missing=False).id,
            subnet_id=record.objects[keys.SUBNET].id,
        )
        yield controllers


def _remove() -> None:
    if Record.open(default_paths(), CLUSTER) is not None:
        done = command("down", CLUSTER, "--yes")
        if done.output["left"]:
            raise CommandFailed(f"`moyai down` left {done.output['left']} objects")

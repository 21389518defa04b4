"""What `moyai up` tells machines, for tests that start some without a cloud: real user data, and an add-on that needs none."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from moyai.bootstrap import user_data
from moyai.bootstrap.api_server import new_encryption_key
from moyai.bootstrap.pki import Pki
from moyai.cloud.openstack import ADAPTER
from moyai.core.ids import UNSEALING_KEY
from moyai.images import references
from moyai.plan.nodes import PlannedNode
from moyai.spec.model import Cluster

#: What a machine's network carries: a private network of the local cloud.
MTU = 1450
_ADDON = """apiVersion: v1
kind: ConfigMap
metadata: {name: moyai-try, namespace: kube-system}
"""


@dataclass(frozen=True)
class BareCluster:
    """``nodes``: the control plane first. All machines are told one token, and the control plane one key. There are no agents,
    so no network policies are asked for: the gate for pods' traffic would close at boot, and nobody would open it."""

    cluster: Cluster
    nodes: tuple[PlannedNode, ...]
    pki: Pki = field(repr=False)
    token: str = field(repr=False, default_factory=user_data.new_token)
    key: str = field(repr=False, default_factory=lambda: secrets.token_urlsafe(32))

    def metadata(self, node: PlannedNode) -> dict[str, str]:
        return {UNSEALING_KEY: self.key} if node.role == "control-plane" else {}

    def user_data(self, node: PlannedNode) -> str:
        pool = next((pool for pool in self.cluster.spec.node_pools if pool.name == node.pool), None)
        network = self.cluster.spec.network.model_copy(update={"policy": False})
        spec = self.cluster.spec.model_copy(update={"network": network})
        facts = user_data.NodeFacts(
            cluster=self.cluster.model_copy(update={"spec": spec}),
            node=node,
            api_address=self.nodes[0].address,
            pki=self.pki,
            token=self.token,
            limit=ADAPTER.user_data_limit,
            pool=pool,
            mtu=MTU,
        )
        if node.role == "worker":
            return user_data.worker(facts)
        return user_data.control_plane(
            facts,
            api_names=(node.address,),
            addons={"controllers": _ADDON},
            key=self.key,
            encryption_key=new_encryption_key(),
            image_tags={name: references.load().tag(name) for name in ("etcd", "coredns")},
        )

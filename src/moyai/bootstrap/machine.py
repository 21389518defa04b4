"""What the server of one machine is made with: user data and metadata, rendered from facts alone.

Pure: the same facts give the same text, but for the salt of the encrypted part. Always holds: a control plane's secrets are in
its user data only encrypted. The key to them is in the metadata. The machine takes it from there before its services start, and
`up` deletes it once the API answers. Where a cloud takes a small script only, all of this is sent to the machine
(``sent_start``), and the key with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moyai.bootstrap import sent_start, user_data
from moyai.bootstrap.beside_data import machine_data
from moyai.bootstrap.pki import Pki
from moyai.cloud.capabilities import Capability
from moyai.cloud.kind import CloudKind
from moyai.core.errors import Terminal
from moyai.core.ids import CLUSTER_TAG, MACHINE_KEY, POD_CIDR_KEY, POOL_KEY, ROLE_KEY, TEMPLATE_KEY, UNSEALING_KEY
from moyai.core.keys import Key
from moyai.images import references
from moyai.plan.addons import Addon, AddonFacts
from moyai.plan.cluster.endpoint import Endpoint, endpoint_of
from moyai.plan.cluster.network import network_of
from moyai.plan.graph import Made, Plan
from moyai.plan.machine_template import Versions, machine_template
from moyai.plan.nodes import PlannedNode
from moyai.plan.observed import AccountFacts
from moyai.plan.rules import API_PORT
from moyai.plan.steps import CreateMachine, CreateServer
from moyai.spec.model import Cluster

#: Bytes of a start that is sent: no cloud counts them.
_UNLIMITED = 1 << 20


@dataclass(frozen=True)
class Secrets:
    """``token``: the bootstrap token. ``unsealing_key``: opens the encrypted part. ``encryption_key``: Secrets are stored with
    it, empty for a cluster that stores them as they are. ``credentials``: credential → its secret. ``start_key``: the public
    line of the key that hands machines their start, where they need one."""

    pki: Pki = field(repr=False)
    token: str = field(repr=False)
    unsealing_key: str = field(repr=False)
    encryption_key: str = field(repr=False)
    credentials: Mapping[Key, str] = field(repr=False, default_factory=dict[Key, str])
    start_key: str = ""


@dataclass(frozen=True)
class ClusterFacts:
    """What all machines of one run have in common. ``rehearses``: a restore is only tried, so that nothing may act on the
    cloud."""

    cluster: Cluster
    uid: str
    plan: Plan
    addons: tuple[Addon, ...]
    account: AccountFacts
    cloud_kind: CloudKind
    capabilities: frozenset[Capability]
    versions: Versions
    rehearses: bool = False


@dataclass(frozen=True)
class ServerContent:
    """``start``: what is sent to the machine, empty where its user data has all. ``untold``: metadata that the cloud cannot
    hold."""

    user_data: str = field(repr=False)
    metadata: Mapping[str, str] = field(repr=False)
    start: str = field(repr=False, default="")
    untold: Mapping[str, str] = field(repr=False, default_factory=dict[str, str])


def server_content(step: CreateServer, facts: ClusterFacts, *, made: Made, secrets: Secrets) -> ServerContent:
    """What the server of ``step`` is made with; ``made`` has all that the step waits for."""
    node = step.node
    metadata = {
        CLUSTER_TAG: facts.uid,
        ROLE_KEY: node.role,
        POOL_KEY: node.pool,
        POD_CIDR_KEY: node.pod_cidr,
        TEMPLATE_KEY: machine_template(facts.cluster.spec, pool=node.pool, versions=facts.versions),
    }
    node_facts = _node_facts(step, facts, made=made, secrets=secrets)
    if node.role == "worker":
        return _fitted(user_data.worker(node_facts), metadata, facts=facts, secrets=secrets)
    # a control plane that joins others finds the add-ons in the cluster
    addons = tuple(addon for addon in facts.addons if not addon.unwanted) if step.first else ()
    text = user_data.control_plane(
        node_facts,
        api_names=_endpoint(facts).names(made),
        addons={addon.name: addon_manifests(addon, facts, made=made, secrets=secrets) for addon in addons},
        late={addon.name for addon in facts.addons if not addon.required},
        key=secrets.unsealing_key,
        encryption_key=secrets.encryption_key,
        image_tags=_image_tags(facts.cluster),
    )
    return _fitted(text, metadata, facts=facts, secrets=secrets, key=secrets.unsealing_key)


def _fitted(text: str, metadata: Mapping[str, str], *, facts: ClusterFacts, secrets: Secrets, key: str = "") -> ServerContent:
    """In the form that the cloud takes. ``key``: opens the encrypted part of ``text``."""
    keeps = Capability.METADATA in facts.capabilities
    told = dict(metadata) if keeps else {CLUSTER_TAG: facts.uid}
    untold = {} if keeps else dict(metadata)
    if not facts.cloud_kind.starts_by_script:
        return ServerContent(text, {**told, UNSEALING_KEY: key} if key else told)
    made = sent_start.sent_start(sent_start.as_script(text, unsealing_key=key), secrets.start_key)
    return ServerContent(made.script, told, made.sealed, untold)


def machine_content(step: CreateMachine, facts: ClusterFacts) -> ServerContent:
    """What the server of a machine beside the cluster is made with."""
    machine, limit = step.machine, facts.cloud_kind.user_data_limit
    metadata = {
        CLUSTER_TAG: facts.uid,
        ROLE_KEY: "machine",
        MACHINE_KEY: machine.entry.name,
        TEMPLATE_KEY: machine.template,
    }
    return ServerContent(machine_data(facts.cluster, machine, limit=limit), metadata)


def _node_facts(step: CreateServer, facts: ClusterFacts, *, made: Made, secrets: Secrets) -> user_data.NodeFacts:
    node = step.node
    pool = next((pool for pool in facts.cluster.spec.node_pools if pool.name == node.pool), None)
    return user_data.NodeFacts(
        cluster=facts.cluster,
        node=node,
        api_address=_endpoint(facts).inside,
        founder=step.first,
        restores=step.restores,
        living=step.living,
        peers=step.peers,
        pki=secrets.pki,
        token=secrets.token,
        limit=_UNLIMITED if facts.cloud_kind.starts_by_script else facts.cloud_kind.user_data_limit,
        own_address=network_of(facts.cluster, facts.capabilities).public_cards,
        tells_range=Capability.METADATA not in facts.capabilities,
        pool=pool if node.role == "worker" else None,
        mtu=made.network_mtu,
        mirror=facts.account.image_mirror,
        emulated=facts.versions.emulated,
        rehearses=facts.rehearses,
    )


def _planes(facts: ClusterFacts) -> tuple[PlannedNode, ...]:
    return tuple(node for node in facts.plan.nodes if node.role == "control-plane")


def _endpoint(facts: ClusterFacts) -> Endpoint:
    return endpoint_of(facts.cluster, _planes(facts), capabilities=facts.capabilities)


def addon_manifests(addon: Addon, facts: ClusterFacts, *, made: Made, secrets: Secrets) -> str:
    """The add-on's objects as one YAML stream, empty where kubeadm installs it. ``made`` has all that they are made from."""
    if addon.manifests is None:
        return ""
    return addon.manifests(addon_facts(facts, made=made, secrets=secrets))


def addon_facts(facts: ClusterFacts, *, made: Made, secrets: Secrets) -> AddonFacts:
    """What an add-on's manifests are made from."""
    choices = facts.plan.choices
    if choices is None:
        raise Terminal(f"the plan of cluster {facts.cluster.name} makes no machines")
    return AddonFacts(
        cluster=facts.cluster,
        uid=facts.uid,
        choices=choices,
        made=made,
        account=facts.account,
        cloud_kind=facts.cloud_kind,
        api_server=f"{_endpoint(facts).inside}:{API_PORT}",
        capabilities=facts.capabilities,
        secrets=secrets.credentials,
    )


def _image_tags(cluster: Cluster) -> dict[str, str]:
    version = cluster.spec.kubernetes_version
    if not references.known(version):
        return {}
    known = references.load(version)
    return {name: known.tag(name) for name in ("etcd", "coredns")}

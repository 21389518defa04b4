"""The add-ons that a cluster starts with. Another one is another entry of ``addons``.

Always holds: required add-ons are applied as soon as the API answers on its machine; the others after the name service runs,
so that a cluster whose volumes do not work is a cluster all the same. The manifests hold the secrets of credentials.
"""

from __future__ import annotations

from collections.abc import Collection

from moyai.agent import manifests as agent
from moyai.ccm import manifests as ccm
from moyai.ccm.settings import AnnounceConfig, CcmConfig, ClusterConfig, LoadBalancerConfig, RouteConfig
from moyai.cloud.capabilities import Capability
from moyai.cloud.factory import provider_args
from moyai.cloud.kind import Login, VolumeNames
from moyai.core.keys import Key
from moyai.csi import manifests as csi
from moyai.csi.settings import CsiConfig, DriverConfig, write_csi_config
from moyai.images import references
from moyai.kube.objects import api_host
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.addons import Addon, AddonFacts, copies
from moyai.plan.bgp.bgp_conf import write_bgp_conf
from moyai.plan.egress import EgressConf, write_egress_conf
from moyai.plan.machines_beside import inside_ranges
from moyai.plan.node_network import write_net_conf
from moyai.plan.pod_network import pod_network_of
from moyai.plan.pod_network.bgp import bgp_conf_of
from moyai.plan.pod_network.mode_change import AgentStage
from moyai.spec.model import ClusterSpec


def controller_manifests(facts: AddonFacts, *, revision: str = "") -> str:
    """``revision``: with another one than before, the controllers read their configuration again."""
    spec, made, floating = facts.cluster.spec, facts.made, facts.choices.floating_network
    config = CcmConfig(
        _login(facts, keys.CONTROLLERS_CREDENTIAL),
        LoadBalancerConfig(
            enabled=Capability.LOAD_BALANCERS in facts.capabilities or facts.account.serves,
            floating_network_id=floating.id if floating else "",
            subnet_id=made.id(keys.SUBNET),
            lb_provider=spec.load_balancer.provider,
            create_monitor=spec.load_balancer.create_monitor,
            internal_lb=spec.network.disable_external_network,
        ),
        RouteConfig(router_id=made.ids.get(keys.ROUTER, "") if pod_network_of(spec).by_router else ""),
        ClusterConfig(
            cluster_uid=facts.uid,
            node_security_group_ids=(made.id(keys.security_group("worker")),),
            fencing=spec.volumes.fencing,
        ),
        announce=AnnounceConfig(
            ranges=tuple(map(str, spec.services.announce.ranges)),
            load_balancer_class=spec.services.announce.load_balancer_class,
        ),
    )
    return ccm.render(
        ccm.ManifestOptions(
            cluster_name=facts.cluster.name,
            config=config,
            image=references.MOYAI,
            pod_cidr=str(spec.network.pod_cidr),
            api_server=facts.api_server,
            replicas=copies(facts.cluster.spec),
            elected=facts.cluster.spec.control_plane.virtual,
            provider_args=provider_args(facts.cloud_kind.name),
            environment=_environment(config.cloud, facts),
            revision=revision,
        )
    )


def agent_manifests(facts: AddonFacts, *, stage: AgentStage | None = None) -> str:
    """``stage``: of a change of the pod network's mode, None for what the cluster's mode is in the end."""
    conf = pod_network_of(facts.cluster.spec).conf
    bgp = stage.bgp if stage and stage.bgp else bgp_conf_of(facts.cluster.spec)
    return agent.render(
        agent.AgentManifestOptions(
            image=references.MOYAI,
            api_server=facts.api_server,
            net_conf=write_net_conf(conf) if conf else None,
            bgp_conf=write_bgp_conf(bgp) if bgp else None,
            egress=_egress(facts.cluster.spec),
            controllers=_agent_controllers(facts.cluster.spec, stage=stage),
            stage=stage,
        )
    )


def _agent_controllers(spec: ClusterSpec, *, stage: AgentStage | None = None) -> tuple[str, ...]:
    """What the agent of each node does; nothing: it clears up."""
    policy = spec.network.policy
    wanted = {
        "pod-network": pod_network_of(spec).conf is not None,
        "node-files": stage is not None and stage.files is not None,
        "policy": policy,
        "cluster-policy": policy,
        "announce": bool(spec.services.announce.ranges),
        "bgp": bgp_conf_of(spec) is not None or (stage is not None and stage.bgp is not None),
        "egress": bool(_egress(spec)),
    }
    return tuple(name for name, runs in wanted.items() if runs)


def _egress(spec: ClusterSpec) -> str:
    """What agents are told of egress addresses; empty where there are none. They are announced by ARP on the nodes' network. A
    CNI plugin that is not ours may send pods' packets past the kernel."""
    network = spec.network
    ranges = tuple(str(one) for one in spec.services.announce.ranges if one.subnet_of(network.node_cidr))
    if network.mode == "none" or not ranges:
        return ""
    inside = tuple(map(str, inside_ranges(spec)))
    return write_egress_conf(EgressConf(ranges, inside, network.vxlan.port, str(network.node_cidr)))


def _volume_manifests(facts: AddonFacts) -> str:
    config = CsiConfig(_login(facts, keys.VOLUMES_CREDENTIAL), moyai=DriverConfig(cluster_uid=facts.uid))
    known = references.load().images
    return csi.render(
        csi.CsiManifestOptions(
            cluster_name=facts.cluster.name,
            names=facts.cloud_kind.volume_names,
            provider_args=provider_args(facts.cloud_kind.name),
            guest_folders=facts.cloud_kind.guest_folders,
            snapshots=facts.cloud_kind.volume_rules.snapshots,
            cloud_conf=write_csi_config(config),
            login_files=config.cloud.files,
            environment=_environment(config.cloud, facts),
            image=references.MOYAI,
            images={name: known[name] for name in csi.SIDECARS},
            api_server=facts.api_server,
            reclaim_policy=facts.cluster.spec.volumes.reclaim_policy,
            replicas=copies(facts.cluster.spec),
            elected=facts.cluster.spec.control_plane.virtual,
        )
    )


def _login(facts: AddonFacts, credential: Key) -> Login:
    return facts.cloud_kind.issued_login(
        cloud=facts.cluster.spec.cloud,
        region=facts.account.region,
        url=facts.account.login_url,
        credential_id=facts.made.id(credential),
        secret=facts.secrets.get(credential, ""),
        reach=facts.account.reach,
    )


def _environment(login: Login, facts: AddonFacts) -> dict[str, str]:
    """The login's variables, so that a proxy which leads to the cloud is not asked for the Kubernetes API."""
    found = dict(login.environment)
    if found:
        host = api_host(facts.api_server)
        direct = (found.get("NO_PROXY", ""), "localhost", "127.0.0.1", host, "kubernetes.default.svc")
        found["NO_PROXY"] = ",".join(filter(None, direct))
    return found


def _agents(spec: ClusterSpec) -> Addon:
    """The agent of each node, named by what it does in this cluster."""
    controllers = _agent_controllers(spec)
    name, condition = "network policies", s.POLICIES
    if "pod-network" in controllers:
        name, condition = "pod network", s.PODS
    elif controllers and not spec.network.policy:
        name, condition = "announced Services", s.ANNOUNCED
    return Addon(
        name=name,
        condition=condition,
        daemon_sets=(agent.NAME,),
        manifests=agent_manifests,
        live=True,
        unwanted=not controllers,
    )


def addons(names: VolumeNames, *, spec: ClusterSpec, snapshots: bool = True) -> tuple[Addon, ...]:
    """All that there are, in the order in which they are applied. ``names``: of the cloud's CSI driver. ``snapshots``: whether
    it has any."""
    controllers = (names.controller, *([csi.SNAPSHOT_CONTROLLER] if snapshots else ()))
    return (
        Addon(
            name="cloud controller manager",
            condition=s.ADDONS,
            deployments=(ccm.NAME, "coredns"),
            daemon_sets=("kube-proxy",),
            after_network=frozenset({"coredns"}),
            copied=(ccm.NAME,),
            credential=keys.CONTROLLERS_CREDENTIAL,
            manifests=controller_manifests,
        ),
        _agents(spec),
        Addon(
            name="volumes",
            condition=s.VOLUMES,
            deployments=controllers,
            daemon_sets=(names.node,),
            after_network=frozenset({*controllers, names.node}),
            copied=controllers,
            required=False,
            needs=Capability.DISKS,
            credential=keys.VOLUMES_CREDENTIAL,
            manifests=_volume_manifests,
            without="claims of volumes must wait",
        ),
    )


def addons_of(
    names: VolumeNames,
    *,
    spec: ClusterSpec,
    ready: bool,
    intended: Collection[Key],
    capabilities: frozenset[Capability],
    snapshots: bool = True,
) -> tuple[Addon, ...]:
    """The add-ons of one cluster: those that it was built with, or, while it is not ``ready``, those that its cloud permits.
    ``spec``: the cluster's.

    A cluster has a credential for each add-on that reaches the cloud: a cluster of an older moyai has none for the CSI driver,
    whose images its machines do not hold.
    """

    def has(addon: Addon) -> bool:
        if addon.required or addon.credential is None:
            return True
        if ready:
            return keys.secret(addon.credential) in intended
        return addon.needs is None or addon.needs in capabilities

    return tuple(addon for addon in addons(names, spec=spec, snapshots=snapshots) if has(addon))

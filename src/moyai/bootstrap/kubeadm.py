"""kubeadm's configuration files (v1beta4) for the control plane and for workers.

Pure: facts in, YAML out. What the machines are (flavor, cloud) plays no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moyai.bootstrap import api_server, kubelet
from moyai.core import yamltext
from moyai.core.ids import NODE_KUBE_PROXY, POD_CIDR_LABEL, POOL_LABEL, TOKEN_DESCRIPTION
from moyai.kube.objects import apart
from moyai.kube.resources import KUBE_SYSTEM
from moyai.plan.nodes import PlannedNode
from moyai.plan.rules import API_PORT
from moyai.spec.model import Cluster, NodePool
from moyai.spec.security import Security

SOCKET = "unix:///run/containerd/containerd.sock"
#: Checks that say nothing about machines whose kernel is another's, or that the image settles by itself.
IGNORED = ["SystemVerification", "NumCPU", "Mem", "Swap", "FileContent--proc-sys-net-bridge-bridge-nf-call-iptables"]
TOKEN_HOURS = 1
#: kubeadm's own are 1 to 5 minutes: too short on a busy or emulated machine, where a step that goes on is better than one that
#: is begun again. `moyai up` has a deadline of its own.
TIMEOUTS = {
    "controlPlaneComponentHealthCheck": "15m0s",
    "kubeletHealthCheck": "10m0s",
    "kubernetesAPICall": "5m0s",
    "tlsBootstrap": "15m0s",
    "discovery": "15m0s",
}
#: Where kubeadm finds what it is to change in its own manifests and in the kubelet's configuration.
PATCHES = "/etc/moyai/patches"
#: Pods that have ended and that nobody deleted, such as those of Jobs: the oldest beyond these go.
TERMINATED_PODS = 1000


#: A virtual address moves when its machine dies without a word: client-go notices a connection that nobody answers within 6 s.
CONNECTIONS = {"HTTP2_READ_IDLE_TIMEOUT_SECONDS": "4", "HTTP2_PING_TIMEOUT_SECONDS": "2"}


def control_plane_patches(*, spread: bool = False) -> dict[str, str]:
    """The control plane's files in PATCHES, by name. ``spread``: no two pods of the name service on one machine.

    CoreDNS's probe has no period of its own: one that comes a moment too early costs the kubelet's default of 10 s.
    """
    probe = {"name": "coredns", "readinessProbe": {"periodSeconds": 1}}
    pod: dict[str, Any] = {"containers": [probe]}
    if spread:
        pod |= apart({"k8s-app": "kube-dns"})
    deployment = {"spec": {"template": {"spec": pod}}}
    return {"corednsdeployment0+strategic.yaml": yamltext.dump(deployment)}


def kube_proxy_patch() -> str:
    """What is changed of kubeadm's kube-proxy: it only watches, so that nothing but its own pings shows a dead connection; and
    each node runs the one of its own version."""
    variables = [{"name": name, "value": value} for name, value in CONNECTIONS.items()]
    container = {"name": "kube-proxy", "image": NODE_KUBE_PROXY, "env": variables}
    return yamltext.dump(
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "kube-proxy", "namespace": KUBE_SYSTEM},
            "spec": {"template": {"spec": {"containers": [container]}}},
        }
    )


def worker_patches(security: Security) -> dict[str, str]:
    """A worker's files in PATCHES, by name. The control plane has the same in its own configuration."""
    return {kubelet.PATCH_FILE: kubelet.patch(security)}


@dataclass(frozen=True)
class InitFacts:
    """``api_names``: names and addresses that lead to the API from outside.

    ``token``: the bootstrap token, valid for an hour from kubeadm's start; empty for a control plane that joins others later.

    ``image_tags``: tags of ``etcd`` and ``coredns`` in the node image, where they are not what kubeadm would choose.

    ``api_address``: at which nodes reach the API.

    ``emulated``: the minor version as which the control plane behaves, empty for its own.

    ``signing``: the certificate of the authority that signs, where ``ca.crt`` has several; empty: ``ca.crt``.
    """

    cluster: Cluster
    node: PlannedNode
    api_names: tuple[str, ...]
    token: str
    image_tags: Mapping[str, str] = field(default_factory=dict[str, str])
    api_address: str = ""
    emulated: str = ""
    signing: str = ""
    tells_range: bool = False


def _args(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _registration(node: PlannedNode, pool: NodePool | None, *, tells_range: bool) -> dict[str, Any]:
    own = {POOL_LABEL: node.pool, **({POD_CIDR_LABEL: node.pod_cidr.replace("/", "_")} if tells_range else {})}
    labels = own | (pool.labels if pool else {}) | own
    registration: dict[str, Any] = {
        "name": node.name,
        "criSocket": SOCKET,
        "imagePullPolicy": "Never" if node.role == "control-plane" else "IfNotPresent",
        "ignorePreflightErrors": IGNORED,
        "kubeletExtraArgs": _args(
            {
                "cloud-provider": "external",
                "node-ip": node.address,
                "node-labels": ",".join(f"{key}={value}" for key, value in labels.items()),
            }
        ),
    }
    if pool is not None:
        # an explicit list, also when empty: kubeadm would otherwise choose for itself
        registration["taints"] = [{"key": t.key, "value": t.value, "effect": t.effect} for t in pool.taints]
    return registration


def init_config(facts: InitFacts) -> str:
    """For ``kubeadm init``, whole or by its phases, on a control plane."""
    spec, node = facts.cluster.spec, facts.node
    endpoint = f"{facts.api_address or node.address}:{API_PORT}"
    # one copy has nobody to wait for: without an election it works at once after a restart
    elect = "true" if node.virtual else "false"
    emulate = {"emulated-version": facts.emulated} if facts.emulated else {}
    return yamltext.dump(
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "InitConfiguration",
            **({"bootstrapTokens": [_token(facts.token)]} if facts.token else {}),
            "localAPIEndpoint": {"advertiseAddress": node.address, "bindPort": API_PORT},
            "nodeRegistration": _registration(node, None, tells_range=facts.tells_range),
            "patches": {"directory": PATCHES},
            "timeouts": TIMEOUTS,
        },
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "ClusterConfiguration",
            "clusterName": facts.cluster.name,
            "kubernetesVersion": f"v{spec.kubernetes_version}",
            "controlPlaneEndpoint": endpoint,
            "encryptionAlgorithm": "ECDSA-P256",
            "networking": {
                "podSubnet": str(spec.network.pod_cidr),
                "serviceSubnet": str(spec.network.service_cidr),
                "dnsDomain": "cluster.local",
            },
            "apiServer": {
                "certSANs": sorted({*facts.api_names, node.address, "127.0.0.1", "localhost"}),
                "extraArgs": _args({**api_server.flags(spec), **emulate}),
                "extraVolumes": api_server.volumes(spec),
            },
            "controllerManager": {
                "extraArgs": _args(
                    {
                        # the planner owns the pod ranges; the cloud controller manager writes them to the nodes
                        "allocate-node-cidrs": "false",
                        # its 20 requests a second delay the first certificates by 5 s
                        "kube-api-qps": "300",
                        "kube-api-burst": "600",
                        "leader-elect": elect,
                        "profiling": "false",
                        "terminated-pod-gc-threshold": str(TERMINATED_PODS),
                        **({"cluster-signing-cert-file": facts.signing} if facts.signing else {}),
                        **emulate,
                    }
                )
            },
            **_image_tags(facts.image_tags),
            "scheduler": {"extraArgs": _args({"leader-elect": elect, "profiling": "false", **emulate})},
        },
        kubelet.configuration(spec.security, pod_prefix=spec.network.node_pod_prefix),
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": str(spec.network.pod_cidr),
            "conntrack": {"maxPerCore": 0, "min": 0},
            "oomScoreAdj": 0,
        },
    )


def _token(token: str) -> dict[str, Any]:
    return {
        "token": token,
        "ttl": f"{TOKEN_HOURS}h0m0s",
        "usages": ["signing", "authentication"],
        "description": TOKEN_DESCRIPTION,
        "groups": ["system:bootstrappers:kubeadm:default-node-token"],
    }


def _image_tags(tags: Mapping[str, str]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    if "etcd" in tags:
        chosen["etcd"] = {"local": {"imageTag": tags["etcd"]}}
    if "coredns" in tags:
        chosen["dns"] = {"imageTag": tags["coredns"]}
    return chosen


def join_config(node: PlannedNode, pool: NodePool | None, *, token: str, discovery_file: str, tells_range: bool = False) -> str:
    """For ``kubeadm join`` on a worker; ``discovery_file``: a kubeconfig on the machine that holds the pinned authority.
    ``tells_range``: the Node says its pod range in a label."""
    return yamltext.dump(
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "JoinConfiguration",
            "discovery": {"file": {"kubeConfigPath": discovery_file}, "tlsBootstrapToken": token},
            "nodeRegistration": _registration(node, pool, tells_range=tells_range),
            "patches": {"directory": PATCHES},
            "timeouts": TIMEOUTS,
        },
    )

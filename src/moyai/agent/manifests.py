"""The agent's own objects in Kubernetes: its DaemonSet, its configuration, and the rights of its controllers.

Everything is in ``kube-system`` and may be applied again at any time. There is no secret in it. The rights are those that the
controllers use and no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from moyai.agent.settings import DEFAULT_CONTROLLERS, SETTLED_CONTROLLERS
from moyai.core import yamltext
from moyai.core.ids import AGENT
from moyai.kube.objects import api_variables
from moyai.kube.objects.meta import part, rows, text_map, texts
from moyai.kube.resources import KUBE_SYSTEM, METALLB, Json
from moyai.plan.announce.metallb_words import NAMESPACE as ANNOUNCE_NAMESPACE
from moyai.plan.bgp.bgp_conf import write_bgp_conf
from moyai.plan.network_policy import boot_gate
from moyai.plan.node_network import write_net_conf
from moyai.plan.pod_network.live_files import write_live_files
from moyai.plan.pod_network.mode_change import AgentStage
from moyai.runtime.controller_names import ARGUMENT, controllers_argument, later_controllers, split_names

NAME = AGENT
BGP_NAME = f"{NAME}-bgp"
NAMESPACE = KUBE_SYSTEM
#: On the loopback of the machine, beside those of the CSI driver.
PORT = 9810
CONFIG_FOLDER = "/etc/kube-flannel"
NET_CONF = "net-conf.json"
BGP_FOLDER, BGP_CONF = "/etc/moyai-bgp", "bgp.json"
#: Where FRR's sockets are: in a folder of the pod.
FRR_FOLDER = "/run/frr"
#: Annotation of the agents' pods while the mode of the pod network changes.
STAGE = "moyai.dev/pod-network-stage"


def _rule(group: str, plurals: str, *, verbs: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": plurals.split(), "verbs": verbs.split()}


#: Controller → its rules.
RIGHTS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "pod-network": (
        _rule("", "nodes", verbs="get list watch"),
        _rule("", "nodes/status", verbs="patch"),
        _rule("", "events", verbs="create patch"),
    ),
    "node-files": (_rule("", "nodes", verbs="get list watch"),),
    "policy": (
        _rule("", "nodes namespaces pods", verbs="get list watch"),
        _rule("networking.k8s.io", "networkpolicies", verbs="get list watch"),
    ),
    "cluster-policy": (
        _rule("policy.networking.k8s.io", "clusternetworkpolicies", verbs="get list watch"),
        _rule("", "events", verbs="create patch"),
    ),
    "announce": (
        _rule("", "nodes services", verbs="get list watch"),
        _rule("", "events", verbs="create patch"),
        _rule("discovery.k8s.io", "endpointslices", verbs="get list watch"),
        _rule(METALLB, "ipaddresspools l2advertisements", verbs="get list watch"),
    ),
    "egress": (
        _rule("", "nodes pods", verbs="get list watch"),
        _rule("", "events", verbs="create patch"),
        _rule("discovery.k8s.io", "endpointslices", verbs="get list watch"),
        _rule("moyai.dev", "egressaddresses", verbs="get list watch"),
        _rule("moyai.dev", "egressaddresses/status", verbs="patch"),
    ),
    "bgp": (
        _rule("", "nodes services", verbs="get list watch"),
        _rule("", "events", verbs="create patch"),
        _rule("discovery.k8s.io", "endpointslices", verbs="get list watch"),
        _rule(
            METALLB,
            "ipaddresspools bgppeers bgpadvertisements bfdprofiles communities",
            verbs="get list watch",
        ),
    ),
}
#: Controller → the namespace that it writes in, and its rules there.
RIGHTS_IN_NAMESPACE: Mapping[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "announce": (
        ANNOUNCE_NAMESPACE,
        (
            _rule("coordination.k8s.io", "leases", verbs="get create update"),
            _rule(METALLB, "servicel2statuses", verbs="get list create patch delete"),
            _rule(METALLB, "servicel2statuses/status", verbs="patch"),
        ),
    ),
    "egress": (ANNOUNCE_NAMESPACE, (_rule("coordination.k8s.io", "leases", verbs="get list watch create update"),)),
    "bgp": (
        ANNOUNCE_NAMESPACE,
        (
            # passwords of sessions; the namespace has no others
            _rule("", "secrets", verbs="get list watch"),
            _rule(METALLB, "servicebgpstatuses", verbs="get list create patch delete"),
            _rule(METALLB, "servicebgpstatuses/status", verbs="patch"),
        ),
    ),
}


#: Controller → Linux capabilities that it needs besides those of all. They are FRR's: it does not start without them.
CAPABILITIES: Mapping[str, tuple[str, ...]] = {"bgp": ("NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "SYS_ADMIN", "SETGID")}


@dataclass(frozen=True)
class AgentManifestOptions:
    """``image``: the moyai OCI image, present in the node's store. ``api_server``: ``host:port`` on the node network: the agent
    does not wait for kube-proxy. ``net_conf``: text of net-conf.json, None where the agent keeps no pod network.
    ``bgp_conf``: text of bgp.json, None without BGP.
    ``egress``: text of the ranges for egress addresses, empty without any.
    ``stage``: of a change of the pod network's mode, None for none.
    ``controllers``: without any, the agent removes what its controllers have left in the kernel."""

    image: str
    api_server: str
    net_conf: str | None = None
    bgp_conf: str | None = None
    egress: str = ""
    controllers: tuple[str, ...] = DEFAULT_CONTROLLERS
    stage: AgentStage | None = None
    pull_policy: str = "IfNotPresent"
    log_level: str = "info"


def render(options: AgentManifestOptions) -> str:
    """All objects as one YAML stream."""
    rights = (*_account(options), *_rights_in_namespaces(options))
    configuration = () if options.net_conf is None else (_configuration(NAME, {NET_CONF: options.net_conf}),)
    if options.bgp_conf is not None:
        # rights in a namespace need the namespace
        space = {"apiVersion": "v1", "kind": "Namespace"}
        meta = {"name": ANNOUNCE_NAMESPACE, "labels": {"app.kubernetes.io/managed-by": "moyai"}}
        configuration = (*configuration, _configuration(BGP_NAME, {BGP_CONF: options.bgp_conf}))
        rights = ({**space, "metadata": meta}, *rights)
    # as text: reading and writing them as YAML would cost `up` a part of a second
    kinds = definitions(options.controllers)
    return "---\n".join([*kinds, yamltext.dump(*rights, *configuration, _daemon_set(options))])


#: Controller → the file with the definition of what it reads and Kubernetes does not define itself.
_DEFINITIONS: Mapping[str, str] = {"cluster-policy": "clusternetworkpolicies.yaml", "egress": "egressaddresses.yaml"}


def definitions(controllers: Collection[str] = tuple(_DEFINITIONS)) -> list[str]:
    """The kinds of objects that these controllers read and that Kubernetes does not define itself, each as YAML."""
    folder = resources.files("moyai.agent") / "crds"
    return [(folder / file).read_text(encoding="utf-8") for name, file in _DEFINITIONS.items() if name in controllers]


def runs(daemon_set: Json, controller: str) -> bool:
    """Whether the agents of this DaemonSet run the controller, one of ``SETTLED_CONTROLLERS``."""
    pod = part(part(part(daemon_set, "spec"), "template"), "spec")
    args = [arg for container in rows(pod, "containers") for arg in texts(container, "args")]
    return any(arg.startswith(ARGUMENT) and controller in split_names(arg.removeprefix(ARGUMENT)) for arg in args)


def _staged(stage: AgentStage | None) -> list[Json]:
    """The configuration itself, so that no pod starts with an older one of the ConfigMap."""
    if stage is None:
        return []
    files = [{"name": "MOYAI_NODE_FILES", "value": write_live_files(stage.files)}] if stage.files else []
    bgp = [{"name": "MOYAI_BGP_CONF", "value": write_bgp_conf(stage.bgp)}] if stage.bgp else []
    return [{"name": "MOYAI_NET_CONF", "value": write_net_conf(stage.conf)}, *files, *bgp]


def _meta(name: str = NAME, *, namespace: str = NAMESPACE, namespaced: bool = True) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "labels": {"app.kubernetes.io/name": NAME, "app.kubernetes.io/managed-by": "moyai"}}
    return {**meta, "namespace": namespace} if namespaced else meta


def _account(options: AgentManifestOptions) -> tuple[dict[str, Any], ...]:
    group, role = "rbac.authorization.k8s.io", f"system:{NAME}"
    rules = [rule for name in options.controllers for rule in RIGHTS[name]]
    return (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta()},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": _meta(role, namespaced=False),
            "rules": [rule for number, rule in enumerate(rules) if rule not in rules[:number]],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": _meta(role, namespaced=False),
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
        },
    )


def _rights_in_namespaces(options: AgentManifestOptions) -> list[dict[str, Any]]:
    group, found = "rbac.authorization.k8s.io", list[dict[str, Any]]()
    for name in options.controllers:
        if name in RIGHTS_IN_NAMESPACE:
            namespace, rules = RIGHTS_IN_NAMESPACE[name]
            subject = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}
            own = NAME if name == "announce" else f"{NAME}-{name}"
            meta = _meta(own, namespace=namespace)
            role = {"apiGroup": group, "kind": "Role", "name": own}
            found += [
                {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": list(rules)},
                {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": meta, "roleRef": role, "subjects": [subject]},
            ]
    return found


def _configuration(name: str, data: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta(name), "data": data}


def _restarted_by(options: AgentManifestOptions) -> dict[str, Any]:
    """An agent reads its configuration when it starts: one that is live makes other pods."""
    found: dict[str, str] = {}
    if options.bgp_conf is not None:
        found["moyai.dev/bgp-config"] = hashlib.sha256(options.bgp_conf.encode()).hexdigest()[:16]
    if options.stage is not None:
        found[STAGE] = options.stage.name
    return {"annotations": found} if found else {}


def stage_of(daemon_set: Json) -> str:
    """The stage of a change of mode that the agents were last brought to; empty for none."""
    return text_map(part(daemon_set, "spec", "template"), "metadata", "annotations").get(STAGE, "")


def _daemon_set(options: AgentManifestOptions) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": NAME}
    # of the node: what agents leave for the next boot
    volumes: list[Json] = [{"name": "policy", "hostPath": {"path": f"/{boot_gate.FOLDER}", "type": "DirectoryOrCreate"}}]
    mounts: list[Json] = [{"name": "policy", "mountPath": f"/{boot_gate.FOLDER}"}]
    if options.net_conf is not None:
        volumes.append({"name": "config", "configMap": {"name": NAME}})
        mounts.append({"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True})
    if options.bgp_conf is not None:
        volumes += [{"name": "bgp", "configMap": {"name": BGP_NAME}}, {"name": "frr", "emptyDir": {"medium": "Memory"}}]
        mounts.append({"name": "bgp", "mountPath": BGP_FOLDER, "readOnly": True})
        mounts.append({"name": "frr", "mountPath": FRR_FOLDER})
    stage = options.stage
    if stage is not None and stage.files is not None:
        for name, folder in (("cni", "/etc/cni/net.d"), ("moyai", "/etc/moyai")):
            volumes.append({"name": name, "hostPath": {"path": folder, "type": "DirectoryOrCreate"}})
            mounts.append({"name": name, "mountPath": folder})
    capabilities = dict.fromkeys(["NET_ADMIN", "NET_RAW"])
    for name in options.controllers:
        capabilities.update(dict.fromkeys(CAPABILITIES.get(name, ())))

    def probe(path: str, **when: int) -> dict[str, Any]:
        return {"httpGet": {"host": "127.0.0.1", "port": PORT, "scheme": "HTTP", "path": path}, "timeoutSeconds": 5, **when}

    container: dict[str, Any] = {
        "name": "agent",
        "image": options.image,
        "imagePullPolicy": options.pull_policy,
        "command": ["moyai", "agent"],
        "args": [
            *(() if options.net_conf is None else (f"--net-config-path={CONFIG_FOLDER}/{NET_CONF}",)),
            *(() if options.bgp_conf is None else (f"--bgp-config-path={BGP_FOLDER}/{BGP_CONF}",)),
            controllers_argument(options.controllers, SETTLED_CONTROLLERS),
            f"--bind=127.0.0.1:{PORT}",
            f"--log-level={options.log_level}",
        ],
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            *api_variables(options.api_server),
            # an agent of an older moyai takes no option that it does not know
            {"name": "MOYAI_BOOT_GATE", "value": f"/{boot_gate.MARKER}"},
            *_staged(stage),
            *([{"name": "MOYAI_EGRESS", "value": options.egress}] if options.egress else []),
            *later_controllers(options.controllers, SETTLED_CONTROLLERS),
        ],
        "resources": {"requests": {"cpu": "5m", "memory": "50Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            # the kernel's network needs root with these capabilities, and nothing else of root
            "capabilities": {"drop": ["ALL"], "add": list(capabilities)},
            "readOnlyRootFilesystem": True,
        },
        # without a start-up probe the kubelet would ask ten seconds later
        "startupProbe": probe("/readyz", periodSeconds=1, failureThreshold=600),
        "livenessProbe": probe("/healthz", periodSeconds=30, failureThreshold=4),
        "readinessProbe": probe("/readyz", periodSeconds=10),
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": _meta(),
        "spec": {
            "selector": {"matchLabels": labels},
            # the kernel forwards without the agent: a restart loses no packet
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1 if stage else "10%"}},
            "template": {
                "metadata": {"labels": labels, **_restarted_by(options)},
                "spec": {
                    "serviceAccountName": NAME,
                    "hostNetwork": True,
                    "dnsPolicy": "Default",
                    "priorityClassName": "system-node-critical",
                    # every node that can run a pod, whatever taints the node has
                    "tolerations": [{"operator": "Exists"}],
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "terminationGracePeriodSeconds": 10,
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }

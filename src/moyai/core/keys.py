"""What every part calls the objects of a cluster: a kind, and a name within the kind.

One vocabulary: plan steps, the record, reports, quotas and tags use these keys. A key is compared and looked up, never taken
apart as text; ``str(key)`` is for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Kinds of objects; the values are the words of reports."""

    NETWORK = "network"
    SUBNET = "subnet"
    ROUTER = "router"
    GATEWAY = "gateway"
    INTERFACE = "interface"
    ROUTES = "routes"
    SECURITY_GROUP = "security group"
    RULES = "rules"
    PORT = "port"
    FLOATING_IP = "floating ip"
    KEY_PAIR = "key pair"
    CREDENTIAL = "credential"
    SERVER = "server"
    #: Keeps servers on different hosts.
    SPREAD_GROUP = "server group"
    #: A public address that leads to the API's port of control planes.
    ENTRANCE = "entrance"
    LOAD_BALANCER = "load balancer"
    #: One to which a load balancer sends.
    BALANCER_MEMBER = "load balancer's member"
    VOLUME = "volume"
    SNAPSHOT = "snapshot"
    IMAGE = "image"
    #: What quotas count besides objects.
    CPU = "CPU"
    MEMORY = "MB of memory"
    #: A Node object in Kubernetes.
    NODE = "node"
    #: A control plane's etcd, as the others know it.
    MEMBER = "etcd member"
    #: A Service in Kubernetes, named with its namespace.
    SERVICE = "service"
    #: A Deployment in Kubernetes.
    DEPLOYMENT = "deployment"
    #: A ConfigMap of kube-system.
    CONFIG_MAP = "config map"
    #: Those that use volumes.
    PODS = "pods"
    #: A bootstrap token in Kubernetes.
    TOKEN = "bootstrap token"
    #: A secret that the cloud reports only once and that is on disk here.
    SECRET = "secret"
    #: The key that opens the encrypted part of a control plane's user data.
    UNSEALING_KEY = "unsealing key"
    #: What a machine runs first, where its user data is too small for it.
    START = "start"
    KUBECONFIG = "kubeconfig"
    #: The default StorageClass.
    STORAGE_CLASS = "storage class"
    #: A part of the cluster with manifests of its own.
    ADDON = "add-on"
    #: A state that a step waits for.
    CONDITION = "condition"

    @property
    def plural(self) -> str:
        """The word for several of them."""
        return str(self) if self in (Kind.RULES, Kind.ROUTES, Kind.PODS, Kind.MEMORY) else f"{self}s"


@dataclass(frozen=True, order=True)
class Key:
    """``name`` is empty where a cluster has one object of the kind."""

    kind: Kind
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else str(self.kind)

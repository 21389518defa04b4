"""The keys of a cluster's own objects, and what the cloud calls them.

A name is taken apart only in the module that makes it (this one, ``nodes``, ``node_ports``, ``load_balancer.names``), by the
inverse of the function that makes it, and only where the fact stands nowhere else. The tags of a cluster's objects have its UID
and not its name, so a cluster without a record here is called what its objects say.
"""

from __future__ import annotations

import re

from moyai.core.ids import Role, cluster_tag
from moyai.core.keys import Key, Kind

NETWORK, SUBNET, ROUTER, ROUTES = Key(Kind.NETWORK), Key(Kind.SUBNET), Key(Kind.ROUTER), Key(Kind.ROUTES)
GATEWAY, INTERFACE = Key(Kind.GATEWAY), Key(Kind.INTERFACE)
FLOATING_IP, KEY_PAIR, KUBECONFIG = Key(Kind.FLOATING_IP), Key(Kind.KEY_PAIR), Key(Kind.KUBECONFIG)
ENTRANCE = Key(Kind.ENTRANCE)
#: The load balancer before the API, and which ranges it lets in.
API_BALANCER, API_BALANCER_ACCESS = Key(Kind.LOAD_BALANCER, "api"), Key(Kind.RULES, "api")
#: kubeadm's configuration of the cluster, and the proxy of Services that kubeadm installs.
KUBEADM_CONFIG, KUBE_PROXY = Key(Kind.CONFIG_MAP, "kubeadm-config"), Key(Kind.ADDON, "kube-proxy")
#: kubeadm's public word of the cluster for machines that join; the Secrets of the cluster, and those with tokens of accounts.
CLUSTER_INFO, SECRETS, ACCOUNT_TOKENS = (
    Key(Kind.CONFIG_MAP, "cluster-info"),
    Key(Kind.SECRET, "all"),
    Key(Kind.SECRET, "tokens"),
)
TOKEN, STORAGE_CLASS = Key(Kind.TOKEN), Key(Kind.STORAGE_CLASS)
#: Credentials of the cloud: the cloud controller manager's and the CSI driver's.
CONTROLLERS_CREDENTIAL, VOLUMES_CREDENTIAL = Key(Kind.CREDENTIAL, "controllers"), Key(Kind.CREDENTIAL, "volumes")


def network(name: str) -> Key:
    """The cluster's own network has no name here."""
    return Key(Kind.NETWORK, name)


def subnet(network: str) -> Key:
    return Key(Kind.SUBNET, network)


def interface(network: str) -> Key:
    return Key(Kind.INTERFACE, network)


def machine_address(machine: str) -> Key:
    """The floating IP of a machine beside the cluster."""
    return Key(Kind.FLOATING_IP, machine)


def port(node: str) -> Key:
    return Key(Kind.PORT, node)


def public_port(node: str) -> Key:
    """The port of a node's card in an external network."""
    return Key(Kind.PORT, f"{node}-public")


def start(node: str) -> Key:
    return Key(Kind.START, node)


def virtual_port(cluster: str) -> Key:
    """The port without a machine that keeps the API's virtual address."""
    return Key(Kind.PORT, f"{cluster}-api")


def server(node: str) -> Key:
    return Key(Kind.SERVER, node)


def spread_group(pool: str) -> Key:
    """The group that keeps a pool's machines on different hosts."""
    return Key(Kind.SPREAD_GROUP, pool)


def node_object(node: str) -> Key:
    return Key(Kind.NODE, node)


def member(node: str) -> Key:
    return Key(Kind.MEMBER, node)


def api_member(node: str) -> Key:
    """A control plane as one to which the load balancer before the API sends."""
    return Key(Kind.BALANCER_MEMBER, node)


def security_group(role: Role) -> Key:
    return Key(Kind.SECURITY_GROUP, role)


def rules(role: Role) -> Key:
    return Key(Kind.RULES, role)


def secret(credential: Key) -> Key:
    """What the record intends once a credential's secret, which the cloud reports only once, is on disk."""
    return Key(Kind.SECRET, credential.name)


def object_name(cluster: str, key: Key) -> str:
    """The name in the cloud of the object that ``key`` stands for."""
    if key.kind in (Kind.PORT, Kind.SERVER):
        return key.name
    return f"{cluster}-{key.name or key.kind}"


def cluster_of(name: str, key: Key) -> str | None:
    """The cluster that ``object_name`` was given; None for a name that it did not make, for example of a renamed object."""
    cluster, _, ending = name.rpartition(f"-{key.name or key.kind}")
    return cluster if cluster and not ending else None


def unique_name(cluster: str, uid: str, *, what: str = "") -> str:
    """Name of what cannot carry a tag (key pair, credential): it ends with the UID itself."""
    return f"{cluster}-{what}-{uid}" if what else f"{cluster}-{uid}"


def later_name(cluster: str, uid: str, *, what: str, stamp: str) -> str:
    """Name of a credential that takes the place of another one. ``stamp``: 14 digits that grow with time."""
    return unique_name(cluster, uid, what=f"{what}-{stamp}")


def is_later_name(name: str, cluster: str, *, what: str, uid: str) -> bool:
    """Whether ``later_name`` made the name."""
    return bool(re.fullmatch(rf"{re.escape(cluster)}-{re.escape(what)}-\d{{14}}-{re.escape(uid)}", name))


def is_unique_name(name: str, uid: str) -> bool:
    """Whether ``unique_name`` made the name for the cluster with this UID."""
    return name.endswith(f"-{uid}")


def machine_address_description(uid: str, machine: str) -> str:
    """Description of the floating IP of a machine beside the cluster."""
    return f"{cluster_tag(uid)} machine {machine}"


def machine_of_address(description: str, uid: str) -> str | None:
    """The machine that ``machine_address_description`` was given; None for a description that it did not make."""
    begin = machine_address_description(uid, "")
    return description.removeprefix(begin) if description.startswith(begin) else None


def api_address_description(uid: str) -> str:
    """Description of the API's floating IP, which has no name in a cloud."""
    return f"{cluster_tag(uid)} api"

"""The names under which images stand in a node's store and in the cloud's registry."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from moyai import __version__
from moyai.core.errors import Terminal
from moyai.core.ids import NODE_KUBE_PROXY
from moyai.core.kubernetes_version import DEFAULT_KUBERNETES_VERSION, minor_version

MOYAI = f"registry.moyai.dev/moyai:{__version__}"
NGINX = "docker.io/library/nginx:latest"
#: Images that have the version of Kubernetes.
_OWN = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")


@dataclass(frozen=True)
class References:
    """``kubernetes``: the version that they belong to. ``kubeadm``: short name → what kubeadm starts by default.

    ``images``: short name → what a node's store holds. They differ in the tags of etcd and CoreDNS; and the CSI sidecars,
    of which kubeadm knows nothing, are only there.
    """

    kubernetes: str
    kubeadm: Mapping[str, str]
    images: Mapping[str, str]

    def names(self, name: str) -> tuple[str, ...]:
        """All names under which a node's store holds an image."""
        return (self.images[name], *((NODE_KUBE_PROXY,) if name == "kube-proxy" else ()))

    @property
    def pause(self) -> str:
        return self.images["pause"]

    def tag(self, name: str) -> str:
        """The tag of an image, as kubeadm's ``imageTag`` wants it."""
        return self.images[name].rpartition(":")[2]

    def check(self, version: str, printed: str) -> None:
        """Compare with what ``kubeadm config images list`` of ``version`` printed; Terminal where they differ."""
        asked = set(printed.split())
        ours = set(self.kubeadm.values())
        if version != self.kubernetes or asked != ours:
            raise Terminal(
                f"kubeadm {version} starts {', '.join(sorted(asked - ours)) or 'other images'}, not what moyai has made",
                hint="bring images/references.toml up to the pinned Kubernetes",
            )


def kube_proxy(version: str) -> str:
    """The name that kubeadm gives kube-proxy's image of this version."""
    return f"registry.k8s.io/kube-proxy:v{version}"


def known(version: str) -> bool:
    """Whether moyai makes images for this version of Kubernetes."""
    return minor_version(version) in _data()["kubeadm"]


def load(version: str = "") -> References:
    """The references that moyai ships with, for this version of Kubernetes, or for the pinned one. Terminal for a minor that
    moyai makes no images for."""
    data = _data()
    version = version or DEFAULT_KUBERNETES_VERSION
    if minor_version(version) not in data["kubeadm"]:
        minors = ", ".join(sorted(data["kubeadm"]))
        raise Terminal(f"moyai makes no images for Kubernetes {version}", hint=f"it makes those of {minors}")
    own = {name: f"registry.k8s.io/{name}:v{version}" for name in _OWN}
    kubeadm = {**own, **data["kubeadm"][minor_version(version)]}
    return References(version, kubeadm, {**kubeadm, **data["instead"], **data["csi"]})


def _data() -> dict[str, Any]:
    return tomllib.loads(resources.files("moyai.images").joinpath("references.toml").read_text())

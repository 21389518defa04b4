"""The names under which images stand in a node's store and in the cloud's registry."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from moyai import __version__
from moyai.core.errors import Terminal

MOYAI = f"registry.moyai.dev/moyai:{__version__}"
NGINX = "docker.io/library/nginx:latest"


@dataclass(frozen=True)
class References:
    """``kubernetes``: the version that they belong to. ``kubeadm``: short name → what kubeadm starts by default.

    ``images``: short name → what a node's store holds. They differ in the tags of etcd and CoreDNS; and the CSI sidecars,
    of which kubeadm knows nothing, are only there.
    """

    kubernetes: str
    kubeadm: Mapping[str, str]
    images: Mapping[str, str]

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


def load() -> References:
    """The references that moyai ships with."""
    data = tomllib.loads(resources.files("moyai.images").joinpath("references.toml").read_text())
    return References(data["kubernetes"], data["kubeadm"], {**data["kubeadm"], **data["instead"], **data["csi"]})

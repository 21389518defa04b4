"""What of a cluster follows the version of its nodes: the DaemonSet kube-proxy, and kubeadm's configuration.

Always holds: nothing else of either is changed; both calls may come again at any time.
"""

from __future__ import annotations

import re

from moyai.core.errors import NotFound
from moyai.core.ids import NODE_KUBE_PROXY
from moyai.images import references
from moyai.kube.objects.meta import part, text
from moyai.kube.quick import KubeApi
from moyai.kube.resources import CONFIG_MAPS, DAEMON_SETS, KUBE_SYSTEM, Json

_NAMESPACE, _CONFIG, _KEY, _PROXY = KUBE_SYSTEM, "kubeadm-config", "ClusterConfiguration", "kube-proxy"
_LINE = re.compile(r"^kubernetesVersion: *['\"]?v?([0-9.]+).*$", re.MULTILINE)


def kubeadm_version(api: KubeApi, *, timeout: float = 3.0) -> str:
    """Without ``v``; empty where nothing says it."""
    found = _LINE.search(_configuration(api, timeout=timeout))
    return found[1] if found else ""


def set_kubeadm_version(api: KubeApi, version: str) -> None:
    now = _configuration(api)
    wanted = _LINE.sub(f"kubernetesVersion: v{version}", now)
    if now != wanted:
        api.patch(CONFIG_MAPS, _CONFIG, body={"data": {_KEY: wanted}}, namespace=_NAMESPACE)


def set_proxy(api: KubeApi, *, pinned: str, held: bool) -> None:
    """``pinned``: the version for all nodes, empty for that of each node. ``held``: pods that run stay."""
    image = references.kube_proxy(pinned) if pinned else NODE_KUBE_PROXY
    strategy: Json = {"type": "OnDelete", "rollingUpdate": None} if held else {"type": "RollingUpdate"}
    container = {"name": _PROXY, "image": image}
    body = {"spec": {"updateStrategy": strategy, "template": {"spec": {"containers": [container]}}}}
    api.patch(DAEMON_SETS, _PROXY, body=body, namespace=_NAMESPACE)


def _configuration(api: KubeApi, *, timeout: float | None = None) -> str:
    try:
        return text(part(api.get(CONFIG_MAPS, _CONFIG, namespace=_NAMESPACE, timeout=timeout), "data"), _KEY)
    except NotFound:
        return ""

"""What of a cluster follows the version of its nodes: kube-proxy, which each node brings along, and kubeadm's configuration.

Always holds: no pod of kube-proxy is started with an image that its node does not have. A cluster whose kube-proxy has one
version for all nodes changes to that of each node before the first machine of another version is made; pods that run stay
meanwhile. On the way back it gets the one version again, which all nodes have then.
"""

from __future__ import annotations

from collections.abc import Iterator

from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation


def plan_node_versions(now: Situation, *, replaces: bool) -> Iterator[s.Step]:
    """``replaces``: whether machines are out of date still."""
    kube, versions = now.observed.kube, now.versions
    if kube is None or versions is None:
        return
    api = (s.reached(s.API),)
    if kube.kubeadm and kube.kubeadm != versions.workers and (now.missing or not versions.held):
        yield s.SetKubeadmVersion(key=keys.KUBEADM_CONFIG, after=api, version=versions.workers)
    if replaces and kube.proxy_image and not kube.proxy_own:
        yield s.SetProxy(key=keys.KUBE_PROXY, after=api, held=True)
    elif kube.proxy_held and not replaces and not versions.held:
        pinned = versions.workers if versions.back else ""
        yield s.SetProxy(key=keys.KUBE_PROXY, after=api, pinned=pinned)

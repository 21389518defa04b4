"""The add-ons that a cluster starts with: which Deployments and DaemonSets they are, and the manifests of volumes.

Always holds: what is waited for is what this cluster was built with, so a cluster of an older moyai is not waited for in vain;
a cluster whose volumes do not work (a cloud without Cinder) is a cluster all the same, and `up` says what is missing.
"""

from __future__ import annotations

from moyai.ccm.manifests import NAME as CCM
from moyai.cloud.openstack.cloud_conf import GlobalConfig
from moyai.core.errors import Conflict, NotFound
from moyai.csi import manifests as csi
from moyai.csi.settings import CsiConfig, MoyaiConfig, write_csi_config
from moyai.images import references
from moyai.kube.quick import KubeApi
from moyai.kube.resources import STORAGE_CLASSES, Json
from moyai.lifecycle.record import Record
from moyai.plan import steps as s
from moyai.spec.model import Cluster


def has_volumes(record: Record) -> bool:
    """Whether the cluster was built with the CSI driver: only then it has a credential of its own."""
    return s.secret_key(s.VOLUMES_CREDENTIAL) in record.recorded().intended


#: The Deployments and DaemonSets of kube-system without which a cluster is not up.
DEPLOYMENTS, DAEMON_SETS = (CCM, "coredns"), ("kube-proxy",)
#: Those without which only its volumes do not work.
VOLUME_DEPLOYMENTS, VOLUME_DAEMON_SETS = (csi.CONTROLLER, csi.SNAPSHOT_CONTROLLER), (csi.NODE,)


def deployments(record: Record) -> tuple[str, ...]:
    """The Deployments of kube-system of a cluster that is whole."""
    return (*DEPLOYMENTS, *(VOLUME_DEPLOYMENTS if has_volumes(record) else ()))


def volumes(cluster: Cluster, record: Record, *, auth_url: str, region: str, credential_id: str, api_server: str) -> str:
    """The CSI driver's manifests. ``api_server``: ``host:port`` on the node network. The text holds the credential's secret."""
    config = CsiConfig(
        GlobalConfig(
            auth_url=auth_url,
            region=region,
            application_credential_id=credential_id,
            application_credential_secret=record.secret(s.VOLUMES_CREDENTIAL),
        ),
        moyai=MoyaiConfig(cluster_uid=record.uid),
    )
    known = references.load().images
    return csi.render(
        csi.ManifestOptions(
            cluster_name=cluster.name,
            cloud_conf=write_csi_config(config),
            image=references.MOYAI,
            images={name: known[name] for name in csi.SIDECARS},
            api_server=api_server,
            reclaim_policy=cluster.spec.volumes.reclaim_policy,
        )
    )


def follow_reclaim_policy(api: KubeApi, cluster: Cluster, *, changed: bool) -> bool:
    """Bring the default StorageClass to the spec's policy; True when it was changed.

    A policy cannot be changed in place, so the class is made anew under its name; volumes and claims that are there keep what
    they were made with. ``changed``: the spec's policy is another than before, so a missing class is one that an interrupted
    change took away; else it is the user who did, and it stays away.
    """
    wanted = csi.storage_class(cluster.spec.volumes.reclaim_policy)
    try:
        found: Json | None = api.get(STORAGE_CLASSES, csi.CLASS)
    except NotFound:
        found = None
    if (found is None and not changed) or (found is not None and found["reclaimPolicy"] == wanted["reclaimPolicy"]):
        return False
    api.delete(STORAGE_CLASSES, csi.CLASS)
    try:
        api.create(STORAGE_CLASSES, wanted)
    except Conflict:
        return False  # somebody else was faster
    return True

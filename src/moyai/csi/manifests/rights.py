"""Accounts and rights: those that the sidecars use and no more. The driver itself has none in Kubernetes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moyai.cloud.kind import VolumeNames
from moyai.csi.manifests.objects import NAMESPACE, SNAPSHOT_CONTROLLER, CsiManifestOptions, meta


def accounts(options: CsiManifestOptions) -> list[dict[str, Any]]:
    accounts = (options.controller_account, options.node_account, SNAPSHOT_CONTROLLER)
    return [
        # the node's account has no rights and needs no token; pods of the other accounts ask for theirs
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": meta(options.names, name),
            "automountServiceAccountToken": False,
        }
        for name in accounts
    ]


def _rule(group: str, resources_: Sequence[str], *, verbs: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": list(resources_), "verbs": verbs.split()}


def rights(options: CsiManifestOptions) -> list[dict[str, Any]]:
    read, events = "get list watch", "list watch create update patch"
    snapshots = "snapshot.storage.k8s.io"
    controller = [
        _rule("", ["persistentvolumes"], verbs=f"{read} create patch delete"),
        _rule("", ["persistentvolumeclaims"], verbs=f"{read} update patch"),
        _rule("", ["persistentvolumeclaims/status"], verbs="patch"),
        _rule("", ["nodes", "pods"], verbs=read),
        _rule("", ["events"], verbs=events),
        _rule("storage.k8s.io", ["storageclasses", "csinodes", "volumeattributesclasses"], verbs=read),
        _rule("storage.k8s.io", ["volumeattachments"], verbs=f"{read} patch"),
        _rule("storage.k8s.io", ["volumeattachments/status"], verbs="patch"),
        _rule(snapshots, ["volumesnapshots"], verbs=f"{read} update"),
        _rule(snapshots, ["volumesnapshotclasses"], verbs=read),
        _rule(snapshots, ["volumesnapshotcontents"], verbs=f"{read} update patch"),
        _rule(snapshots, ["volumesnapshotcontents/status"], verbs="update patch"),
    ]
    snapshot_controller = [
        _rule("", ["persistentvolumes"], verbs=read),
        _rule("", ["persistentvolumeclaims"], verbs=f"{read} update"),
        _rule("", ["events"], verbs=events),
        _rule(snapshots, ["volumesnapshotclasses"], verbs=read),
        _rule(snapshots, ["volumesnapshotcontents", "volumesnapshots"], verbs=f"{read} create update patch delete"),
        _rule(snapshots, ["volumesnapshotcontents/status", "volumesnapshots/status"], verbs="update patch"),
    ]
    names, account = options.names, options.controller_account
    objects = [
        *_bound(names, f"system:{names.objects}-controller", rules=controller, account=account),
        *_bound(names, "system:snapshot-controller", rules=snapshot_controller, account=SNAPSHOT_CONTROLLER),
    ]
    if options.elected:
        lease = [_rule("coordination.k8s.io", ["leases"], verbs="get watch list delete update create")]
        objects += _bound(names, f"{names.objects}-controller", rules=lease, account=account, namespaced=True)
        objects += _bound(names, SNAPSHOT_CONTROLLER, rules=lease, account=SNAPSHOT_CONTROLLER, namespaced=True)
    return objects


def _bound(
    names: VolumeNames, name: str, *, rules: list[dict[str, Any]], account: str, namespaced: bool = False
) -> list[dict[str, Any]]:
    """A role and its binding to one account."""
    group, kind = "rbac.authorization.k8s.io", "Role" if namespaced else "ClusterRole"
    head = meta(names, name, namespaced=namespaced)
    return [
        {"apiVersion": f"{group}/v1", "kind": kind, "metadata": head, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": f"{kind}Binding",
            "metadata": head,
            "roleRef": {"apiGroup": group, "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}],
        },
    ]

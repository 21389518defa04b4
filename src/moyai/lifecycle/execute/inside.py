"""Carries out the steps inside the cluster, and the one that opens the way into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from moyai.bootstrap import pki, user_data
from moyai.core.files import write_private
from moyai.core.ids import UNSEALING_KEY
from moyai.core.progress import Progress
from moyai.kube.resources import DEPLOYMENTS, KUBE_SYSTEM
from moyai.lifecycle import addon_objects, waits
from moyai.lifecycle.drain import drain, exclude, forget_node, mark_control_plane, return_to_service
from moyai.lifecycle.execute.context import Context, Handler, handles
from moyai.lifecycle.execute.removing import retry_while_busy
from moyai.lifecycle.leaving_planes import LeavingPlanes
from moyai.lifecycle.storage_class import set_reclaim_policy
from moyai.lifecycle.tokens import add_token, revoke_tokens
from moyai.lifecycle.version_objects import set_kubeadm_version, set_proxy
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.graph import Made
from moyai.plan.rules import API_PORT


class Inside:
    """``authorities``: the cluster's. ``manifests``: the objects of the add-on of this name, as one YAML stream."""

    def __init__(self, context: Context, *, authorities: pki.Pki, manifests: Callable[[str, Made], str]) -> None:
        self._context, self._authorities, self._manifests = context, authorities, manifests
        self._leaving = LeavingPlanes(context.api, clock=context.clock)

    def handlers(self) -> Mapping[type[s.Step], Handler]:
        return dict(
            [
                handles(s.WriteKubeconfig, self._kubeconfig),
                handles(s.DrainNode, self._drain),
                handles(s.ExcludeNode, self._exclude),
                handles(s.UncordonNode, self._uncordon),
                handles(s.MarkControlPlane, self._mark),
                handles(s.MoveLeadership, self._leaving.move_leadership),
                handles(s.StopServing, self._leaving.stop_serving),
                handles(s.RemoveMember, self._remove_member),
                handles(s.DeleteNode, self._delete_node),
                handles(s.RenewToken, self._token),
                handles(s.RevokeTokens, self._revoke_tokens),
                handles(s.DeleteUnsealingKey, self._unsealing_key),
                handles(s.SetReclaimPolicy, self._reclaim_policy),
                handles(s.SetCopies, self._copies),
                handles(s.SetProxy, self._proxy),
                handles(s.SetKubeadmVersion, self._kubeadm_version),
                handles(s.ApplyAddon, self._apply),
                handles(s.RemoveAddon, self._remove),
            ]
        )

    def _kubeconfig(self, _step: s.WriteKubeconfig, _: Progress) -> None:
        record, address = self._context.require_record(), self._context.made.api_address
        server = f"https://{address}:{API_PORT}"
        text = pki.admin_kubeconfig(self._authorities, name=record.name, server=server, clock=self._context.clock)
        write_private(record.folder / "kubeconfig", text)
        record.set_api_address(address)

    def _drain(self, step: s.DrainNode, progress: Progress) -> None:
        drain(self._context.api(), step.node, clock=self._context.clock, progress=progress, rules=step.rules)

    def _exclude(self, step: s.ExcludeNode, _: Progress) -> None:
        exclude(self._context.api(), step.node)

    def _uncordon(self, step: s.UncordonNode, _: Progress) -> None:
        return_to_service(self._context.api(), step.node)

    def _mark(self, step: s.MarkControlPlane, progress: Progress) -> None:
        context = self._context
        mark_control_plane(context.api(), step.node, clock=context.clock, progress=progress, timeout=waits.NODES_TIMEOUT)

    def _remove_member(self, step: s.RemoveMember, progress: Progress) -> None:
        self._leaving.remove_member(step, progress)
        if step.release:
            self._context.require_record().release(step.node)

    def _delete_node(self, step: s.DeleteNode, _: Progress) -> None:
        forget_node(self._context.api(), step.node, clock=self._context.clock)
        self._context.forget(step.key)

    def _token(self, step: s.RenewToken, _: Progress) -> None:
        token = (self._context.require_record().secret("token") if step.keep else "") or user_data.new_token()
        # the cluster first: a token that only the record has would keep machines out
        add_token(self._context.api(), token, clock=self._context.clock)
        self._context.require_record().keep_token(token)

    def _revoke_tokens(self, _step: s.RevokeTokens, _: Progress) -> None:
        # the record first: machines that join later must not be given a token that the cluster refuses
        self._context.require_record().forget_token()
        revoke_tokens(self._context.api())

    def _unsealing_key(self, step: s.DeleteUnsealingKey, _: Progress) -> None:
        server_id = self._context.id(keys.server(step.node))
        machines = self._context.cloud.machines
        # a key that stays is read by whoever reads the machine's metadata
        retry_while_busy(lambda: machines.delete_server_metadata(server_id, [UNSEALING_KEY]), self._context.clock)

    def _reclaim_policy(self, step: s.SetReclaimPolicy, _: Progress) -> None:
        set_reclaim_policy(self._context.api(), self._context.cloud.kind.volume_names, policy=step.policy)

    def _copies(self, step: s.SetCopies, _: Progress) -> None:
        body = {"spec": {"replicas": step.copies}}
        self._context.api().patch(DEPLOYMENTS, step.key.name, body=body, namespace=KUBE_SYSTEM)

    def _proxy(self, step: s.SetProxy, _: Progress) -> None:
        set_proxy(self._context.api(), pinned=step.pinned, held=step.held)

    def _kubeadm_version(self, step: s.SetKubeadmVersion, _: Progress) -> None:
        set_kubeadm_version(self._context.api(), step.version)

    def _apply(self, step: s.ApplyAddon, _: Progress) -> None:
        addon_objects.apply(self._context.api(), self._manifests(step.addon, self._context.made))

    def _remove(self, step: s.RemoveAddon, _: Progress) -> None:
        addon_objects.remove(self._context.api(), self._manifests(step.addon, self._context.made))

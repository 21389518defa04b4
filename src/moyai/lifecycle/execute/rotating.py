"""Carries out the steps of a rotation of certificates and keys."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import resources

from moyai.bootstrap import api_server, pki
from moyai.core import yamltext
from moyai.core.errors import NotFound, Retriable
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.core.yamlread import read_one
from moyai.kube.objects.meta import part, text
from moyai.kube.resources import CONFIG_MAPS, SECRETS
from moyai.lifecycle.execute.context import Context, Handler, handles
from moyai.lifecycle.machine_keys import MachineKeys, plane_order, worker_order
from moyai.lifecycle.record_format import ENCRYPTION_KEY
from moyai.plan import steps as s
from moyai.plan.rotation import Rotated, Rotation, RotationStage

_TOKEN_TYPE = "kubernetes.io/service-account-token"
#: Seconds for the controller manager to sign a token that is missing.
_TOKEN_TIMEOUT = 60.0


class Rotating:
    """``authorities``: the cluster's, as its record has them at this stage. ``encrypts``: whether Secrets are encrypted."""

    def __init__(self, context: Context, rotation: Rotation, *, authorities: pki.Pki, encrypts: bool) -> None:
        self._context, self._rotation = context, rotation
        self._authorities, self._encrypts = authorities, encrypts
        self._machines = MachineKeys(context.api, clock=context.clock)

    def handlers(self) -> Mapping[type[s.Step], Handler]:
        return dict(
            [
                handles(s.SetMachineKeys, self._give),
                handles(s.WaitStaticPods, self._machines.wait),
                handles(s.PublishAuthority, self._publish),
                handles(s.RewriteSecrets, self._rewrite),
                handles(s.RenewLegacyTokens, self._sign_tokens),
            ]
        )

    def _give(self, step: s.SetMachineKeys, progress: Progress) -> None:
        now, rotation = self._context.clock.now().isoformat(timespec="seconds"), self._rotation
        changes = rotation.what is Rotated.AUTHORITIES
        if step.role == "worker":
            order = worker_order(self._authorities, now=now)
        else:
            keys = self._context.require_record().secret(ENCRYPTION_KEY) if self._encrypts else ""
            order = plane_order(
                self._authorities,
                rotation,
                encryption=api_server.encryption(keys) if keys else "",
                now=now,
                renewal=_renews() if changes else "",
            )
        if changes and rotation.stage is not RotationStage.TRUST:
            given = pki.kubelet_certificate(self._authorities, step.node, now=self._context.clock.now())
            order = replace(order, kubelet=given)
        self._machines.give(step, order, progress=progress)

    def _publish(self, _step: s.PublishAuthority, _: Progress) -> None:
        api, name = self._context.api(), "cluster-info"
        with suppress(NotFound):
            there = text(part(api.get(CONFIG_MAPS, name, namespace="kube-public"), "data"), "kubeconfig")
            config = read_one(there)
            for one in config["clusters"]:
                one["cluster"]["certificate-authority-data"] = base64.b64encode(self._authorities.ca).decode()
            if config != read_one(there):
                body = {"data": {"kubeconfig": yamltext.dump(config)}}
                api.patch(CONFIG_MAPS, name, body=body, namespace="kube-public")

    def _rewrite(self, _step: s.RewriteSecrets, progress: Progress) -> None:
        api = self._context.api()
        found = api.list(SECRETS)
        for number, one in enumerate(found, 1):
            meta = part(one, "metadata")
            with suppress(NotFound):
                # a change of nothing: the API server stores an object again whose stored form is not that of its first key
                api.patch(SECRETS, text(meta, "name"), body={}, namespace=text(meta, "namespace"))
            progress.progress(f"{number} of {len(found)} Secrets", number / len(found))

    def _sign_tokens(self, _step: s.RenewLegacyTokens, progress: Progress) -> None:
        api = self._context.api()
        begun = self._rotation.generation
        for one in api.list(SECRETS, fields=f"type={_TOKEN_TYPE}"):
            meta = part(one, "metadata")
            name, namespace = text(meta, "name"), text(meta, "namespace")
            if text(part(meta, "annotations"), _SIGNED) != begun:
                body = {"metadata": {"annotations": {_SIGNED: begun}}, "data": {"token": None}}
                with suppress(NotFound):
                    api.patch(SECRETS, name, body=body, namespace=namespace)

            def look(name: str = name, namespace: str = namespace) -> NotYet | None:
                try:
                    there = "token" in part(api.get(SECRETS, name, namespace=namespace), "data")
                except NotFound:
                    return None
                return None if there else NotYet(f"Secret {namespace}/{name} has no token yet")

            until(
                look, clock=self._context.clock, timeout=_TOKEN_TIMEOUT, pause=0.5, retry=Retriable, on_wait=progress.progress
            )


#: Of a Secret whose token was signed in this rotation.
_SIGNED = "moyai.dev/token-signed"


def _renews() -> str:
    return (resources.files("moyai.bootstrap") / "data" / "renew_certificates.py").read_text(encoding="utf-8")

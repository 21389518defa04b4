"""Carries out the steps of a rotation of the credentials that the parts inside a cluster log in to the cloud with.

Always holds: a secret is on disk before anything uses it; the old credential goes once the part runs with the new one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from moyai.ccm import manifests as ccm
from moyai.cloud.credentials import Use
from moyai.core.errors import Retriable, Terminal
from moyai.core.keys import Key
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import parse_deployment
from moyai.kube.objects.meta import part
from moyai.kube.resources import DEPLOYMENTS, KUBE_SYSTEM, SECRETS
from moyai.lifecycle.execute.context import Context, Handler, handles
from moyai.lifecycle.record_format import NEXT_NAMES, SECRET_NAMES
from moyai.plan import steps as s

#: Of a Deployment's pods: the id of the credential that they have begun with.
_ANNOTATION = "moyai.dev/credential"
#: Seconds for pods that were made again; for kubelets to hear that a Secret has changed, which they watch.
_TIMEOUT, _HEARD = 180.0, 3.0


@dataclass(frozen=True)
class _Next:
    id: str
    name: str
    secret: str = field(repr=False)


class Crediting:
    def __init__(self, context: Context) -> None:
        self._context = context

    def handlers(self) -> Mapping[type[s.Step], Handler]:
        return dict(
            [
                handles(s.IssueCredential, self._issue),
                handles(s.InstallCredential, self._install),
                handles(s.RetireCredential, self._retire),
            ]
        )

    def _issue(self, step: s.IssueCredential, _: Progress) -> None:
        record, credentials = self._context.require_record(), self._context.cloud.credentials
        if self._next(step.key):
            return
        for one in credentials.credentials(name_prefix=step.name):
            # of a run that was killed before it had the secret on disk
            credentials.delete_credential(one.id)
        made = credentials.create_credential(
            name=step.name, use=step.use, description=f"{step.use} of moyai cluster {record.name}"
        )
        self._context.notes.extend(made.notes)
        kept = {"id": made.id, "name": step.name, "secret": made.secret}
        record.keep_secret(NEXT_NAMES[step.key], json.dumps(kept))

    def _install(self, step: s.InstallCredential, progress: Progress) -> None:
        context = self._context
        api, record, coming = context.api(), context.require_record(), self._require(step.key)
        secret, deployment = self._objects(step.use)
        old = record.objects[step.key].id
        data = part(api.get(SECRETS, secret, namespace=KUBE_SYSTEM), "data")
        texts = {name: base64.b64decode(str(value)).decode() for name, value in data.items()}
        if not any(one in text for text in texts.values() for one in (old, coming.id)):
            raise Terminal(
                f"Secret {KUBE_SYSTEM}/{secret} has neither the credential on record nor the new one: somebody has changed it",
                hint=f"write id {coming.id} and its secret into its cloud.conf, or put the Secret back",
            )
        pairs = ((old, coming.id), (record.secret(SECRET_NAMES[step.key]), coming.secret))
        changed = {name: _replaced(text, pairs) for name, text in texts.items()}
        if changed != texts:
            body = {"data": {name: base64.b64encode(text.encode()).decode() for name, text in changed.items()}}
            api.patch(SECRETS, secret, body=body, namespace=KUBE_SYSTEM)
            context.clock.sleep(_HEARD)
        template = {"metadata": {"annotations": {_ANNOTATION: coming.id}}}
        api.patch(DEPLOYMENTS, deployment, body={"spec": {"template": template}}, namespace=KUBE_SYSTEM)

        def runs() -> NotYet | None:
            found = parse_deployment(api.get(DEPLOYMENTS, deployment, namespace=KUBE_SYSTEM))
            return None if found.done else NotYet(f"{deployment} does not run with the new credential yet")

        until(runs, clock=context.clock, timeout=_TIMEOUT, pause=0.5, retry=Retriable, on_wait=progress.progress)

    def _retire(self, step: s.RetireCredential, _: Progress) -> None:
        record, coming = self._context.require_record(), self._next(step.key)
        if coming is None:
            return  # a killed run has done it
        old = record.objects[step.key].id
        if old != coming.id:
            self._context.cloud.credentials.delete_credential(old)
            record.made(step.key, coming.id, name=coming.name)
        record.keep_secret(SECRET_NAMES[step.key], coming.secret)
        record.drop_secret(NEXT_NAMES[step.key])

    def _next(self, key: Key) -> _Next | None:
        kept = self._context.require_record().secret(NEXT_NAMES[key])
        return _Next(**json.loads(kept)) if kept else None

    def _require(self, key: Key) -> _Next:
        found = self._next(key)
        if found is None:
            raise Terminal(f"the record has no new {key}", hint="`moyai credentials rotate` goes on")
        return found

    def _objects(self, use: Use) -> tuple[str, str]:
        """(Secret, Deployment) of a part, both in kube-system."""
        names = self._context.cloud.kind.volume_names
        return (ccm.NAME, ccm.NAME) if use is Use.CONTROLLERS else (names.secret, names.controller)


def _replaced(text: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        text = text.replace(old, new) if old else text
    return text

"""Rotations of a cluster's certificates and keys: which stages each has, what follows what, and the steps of one stage.

Pure. Always holds: a stage is left only when all machines have it, so that two machines are never more than one stage apart;
what a machine signs or encrypts, all others trust or read, whether they have its stage, the one before or the one after.
Workloads go on: nothing but the control planes' own static pods and kubelets starts again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from moyai.cloud.credentials import Use
from moyai.core.ids import Role
from moyai.core.keys import Key
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.graph import Plan, ordered

#: How long a token of a service account may still be used that was signed before its key was replaced. Kubelets renew tokens
#: of pods before their hour ends; a client may read its file a while later.
TOKEN_LIFE = timedelta(minutes=75)


class Rotated(StrEnum):
    """What is rotated; the values are those of the record, and the words that people read."""

    CERTIFICATES = "certificates"
    AUTHORITIES = "authorities"
    ACCOUNT_KEY = "service account key"
    ENCRYPTION_KEY = "encryption key"
    CREDENTIALS = "credentials"


class RotationStage(StrEnum):
    """The values are those of the record."""

    RENEW = "renew"
    TRUST = "trust both"
    USE = "use the new one"
    DROP = "drop the old one"


STAGES: dict[Rotated, tuple[RotationStage, ...]] = {
    Rotated.CERTIFICATES: (RotationStage.RENEW,),
    Rotated.AUTHORITIES: (RotationStage.TRUST, RotationStage.USE, RotationStage.DROP),
    Rotated.ACCOUNT_KEY: (RotationStage.TRUST, RotationStage.USE, RotationStage.DROP),
    Rotated.ENCRYPTION_KEY: (RotationStage.TRUST, RotationStage.USE, RotationStage.DROP),
    # the cloud takes both as long as both exist
    Rotated.CREDENTIALS: (RotationStage.USE, RotationStage.DROP),
}


#: What a person calls to go on.
COMMANDS = {
    Rotated.CERTIFICATES: "moyai certificates renew",
    Rotated.AUTHORITIES: "moyai certificates rotate-ca",
    Rotated.ACCOUNT_KEY: "moyai certificates rotate-account-key",
    Rotated.ENCRYPTION_KEY: "moyai certificates rotate-encryption-key",
    Rotated.CREDENTIALS: "moyai credentials rotate",
}


_ALL_PODS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
#: The static pods of a control plane that read what is rotated.
_PODS: dict[Rotated, tuple[str, ...]] = {
    Rotated.CERTIFICATES: _ALL_PODS,
    Rotated.AUTHORITIES: _ALL_PODS,
    Rotated.ACCOUNT_KEY: ("kube-apiserver", "kube-controller-manager"),
    Rotated.ENCRYPTION_KEY: ("kube-apiserver",),
}


@dataclass(frozen=True)
class Rotation:
    """``begun``: when the rotation began (ISO 8601); names what is new. ``done``: when all machines had the stage, empty
    before."""

    what: Rotated
    stage: RotationStage
    begun: str
    done: str = ""

    @property
    def generation(self) -> str:
        """Tells the static pods of this stage from those before."""
        return f"{self.begun} {self.what}: {self.stage}"

    @property
    def pods(self) -> tuple[str, ...]:
        """The static pods that start again at each stage."""
        return _PODS.get(self.what, ())

    @property
    def moment(self) -> datetime:
        return datetime.fromisoformat(self.begun)

    @property
    def due(self) -> datetime | None:
        """When the next stage may begin where it must not begin at once."""
        if self.done and self.what is Rotated.ACCOUNT_KEY and self.stage is RotationStage.USE:
            return datetime.fromisoformat(self.done) + TOKEN_LIFE
        return None

    @property
    def stamp(self) -> str:
        """The same moment as part of a name."""
        return f"{self.moment:%Y%m%d%H%M%S}"

    def waits(self, now: datetime) -> bool:
        """Whether the next stage must not begin yet."""
        return self.due is not None and now < self.due


def begin(what: Rotated, *, now: datetime) -> Rotation:
    return Rotation(what, STAGES[what][0], now.isoformat(timespec="seconds"))


def finished(rotation: Rotation, *, now: datetime) -> Rotation:
    """The same with its stage done on all machines."""
    return replace(rotation, done=now.isoformat(timespec="seconds"))


def following(rotation: Rotation) -> Rotation | None:
    """The next stage; None after the last."""
    stages = STAGES[rotation.what]
    number = stages.index(rotation.stage) + 1
    return Rotation(rotation.what, stages[number], rotation.begun) if number < len(stages) else None


def stages_left(rotation: Rotation) -> tuple[Rotation, ...]:
    """This stage where it is not done, and those behind it."""
    found = [] if rotation.done else [rotation]
    later = following(rotation)
    while later is not None:
        found.append(later)
        later = following(later)
    return tuple(found)


def plan_stage(rotation: Rotation, *, planes: Sequence[str], workers: Sequence[str]) -> Plan:
    """The steps that bring all machines to the stage. ``planes``, ``workers``: names of the nodes."""
    return Plan(steps=ordered(_steps(rotation, planes, workers=workers)))


def plan_credentials(rotation: Rotation, parts: Mapping[Key, str], *, uses: Mapping[Key, Use]) -> Plan:
    """``parts``: credential → the name of the one that comes in its place. ``uses``: which part logs in with it."""
    steps: list[s.Step] = []
    for key, name in parts.items():
        use = uses[key]
        if rotation.stage is RotationStage.DROP:
            steps.append(s.RetireCredential(key=key))
            continue
        issue = s.IssueCredential(key=key, name=name, use=use)
        steps += (issue, s.InstallCredential(key=key, use=use, after=(issue.id,)))
    return Plan(steps=ordered(steps))


def _steps(rotation: Rotation, planes: Sequence[str], *, workers: Sequence[str]) -> Iterator[s.Step]:
    before: tuple[s.StepId, ...] = ()
    if rotation.what in (Rotated.CERTIFICATES, Rotated.AUTHORITIES):
        # while the certificate of the old kubeconfig still counts
        write = s.WriteKubeconfig(key=keys.KUBECONFIG, why=_WHY[rotation.stage])
        yield write
        before = (write.id,)
    kubelets = workers if rotation.what is Rotated.AUTHORITIES else ()
    if rotation.stage is RotationStage.DROP:
        # a kubelet that still has a certificate of the old authority gets another one before nobody takes it
        before = (*before, *(yield from _workers(rotation, kubelets, after=before)))
    for node in planes:
        # one after the other: the others serve meanwhile
        given = _given(rotation, node, role="control-plane", after=before)
        yield given
        wait = s.WaitStaticPods(
            key=s.static_pods(node), node=node, generation=rotation.generation, pods=rotation.pods, after=(given.id,)
        )
        yield wait
        before = (wait.id,)
    if rotation.stage is not RotationStage.DROP:
        before = (*before, *(yield from _workers(rotation, kubelets, after=before)))
    if rotation.what is Rotated.AUTHORITIES:
        yield s.WaitNodes(key=s.NODES, nodes=(*planes, *workers), after=before)
        yield s.PublishAuthority(key=keys.CLUSTER_INFO, after=before)
    if rotation.what is Rotated.ENCRYPTION_KEY and rotation.stage is RotationStage.USE:
        yield s.RewriteSecrets(key=keys.SECRETS, after=before)
    if rotation.what is Rotated.ACCOUNT_KEY and rotation.stage is RotationStage.USE:
        yield s.RenewLegacyTokens(key=keys.ACCOUNT_TOKENS, after=before)


def _workers(
    rotation: Rotation, nodes: Sequence[str], *, after: tuple[s.StepId, ...]
) -> Generator[s.Step, None, tuple[s.StepId, ...]]:
    """One after the other: a kubelet that starts again is not Ready for a moment, and Services leave out its pods meanwhile."""
    for node in nodes:
        step = _given(rotation, node, role="worker", after=after)
        yield step
        after = (step.id,)
    return after


def _given(rotation: Rotation, node: str, *, role: Role, after: tuple[s.StepId, ...]) -> s.SetMachineKeys:
    return s.SetMachineKeys(key=keys.node_object(node), node=node, role=role, what=str(rotation.what), after=after)


_WHY = {
    RotationStage.RENEW: "with a new certificate",
    RotationStage.TRUST: "it trusts both authorities",
    RotationStage.USE: "the new authority signs its certificate",
    RotationStage.DROP: "it trusts the new authority alone",
}

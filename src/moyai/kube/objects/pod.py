"""The parts of a pod that moyai reads: its node, its owner, and the state of its containers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from moyai.kube.objects.meta import condition, deleting, number, part, rows, text, text_map
from moyai.kube.resources import Json


@dataclass(frozen=True)
class Container:
    """``waiting``, ``ended``: the reason that the kubelet gives, empty when it is not so."""

    name: str
    image: str = ""
    waiting: str = ""
    ended: str = ""
    message: str = ""
    ready: bool = False
    restarts: int = 0

    @property
    def starting(self) -> bool:
        """Whether it waits for nothing but its own start."""
        return self.waiting in ("ContainerCreating", "PodInitializing")

    @property
    def held(self) -> bool:
        """Whether it waits for something that does not come by itself."""
        return bool(self.waiting) and not self.starting


@dataclass(frozen=True)
class Pod:
    """``static``: the copy of a pod that its kubelet runs from a file. ``owners``: their kinds. ``claims``: names of the claims
    that it uses. ``gates``: what keeps the scheduler from it. ``scheduler``: why the scheduler has found no node.
    ``containers``: those that the kubelet knows, init containers first."""

    namespace: str
    name: str
    uid: str = ""
    node: str = ""
    phase: str = ""
    deleting: bool = False
    static: bool = False
    ready: bool = False
    reason: str = ""
    message: str = ""
    owners: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    scheduler: str = ""
    containers: tuple[Container, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def finished(self) -> bool:
        """Whether all its containers have ended for good."""
        return self.phase in ("Succeeded", "Failed")


def parse_pod(found: Json) -> Pod:
    meta, spec, status = (part(found, key) for key in ("metadata", "spec", "status"))
    waiting = [one for one in rows(status, "conditions") if one.get("type") == "PodScheduled" and one.get("status") != "True"]
    images = {text(one, "name"): text(one, "image") for one in [*rows(spec, "initContainers"), *rows(spec, "containers")]}
    states = [*rows(status, "initContainerStatuses"), *rows(status, "containerStatuses")]
    return Pod(
        namespace=text(meta, "namespace"),
        name=str(meta["name"]),
        uid=text(meta, "uid"),
        node=text(spec, "nodeName"),
        phase=text(status, "phase"),
        deleting=deleting(found),
        static="kubernetes.io/config.mirror" in text_map(meta, "annotations"),
        ready=bool(condition(found, "Ready")),
        reason=text(status, "reason"),
        message=text(status, "message"),
        owners=tuple(text(one, "kind") for one in rows(meta, "ownerReferences")),
        claims=tuple(_claims(text(meta, "name"), rows(spec, "volumes"))),
        gates=tuple(text(one, "name") for one in rows(spec, "schedulingGates")),
        scheduler=text(waiting[0], "message") if waiting else "",
        labels=text_map(meta, "labels"),
        containers=tuple(_container(one, images.get(text(one, "name"), "")) for one in states),
    )


def _claims(pod: str, volumes: Iterable[Json]) -> Iterable[str]:
    for volume in volumes:
        if "persistentVolumeClaim" in volume:
            yield text(part(volume, "persistentVolumeClaim"), "claimName")
        elif "ephemeral" in volume:
            yield f"{pod}-{volume['name']}"


def _container(state: Json, image: str) -> Container:
    waiting = part(state, "state", "waiting")
    ended = part(state, "state", "terminated") or part(state, "lastState", "terminated")
    reason = text(ended, "reason")
    if reason == "Error":
        reason = f"exit code {text(ended, 'exitCode')}"
    return Container(
        name=text(state, "name"),
        image=image,
        waiting=text(waiting, "reason"),
        ended=reason,
        message=text(waiting, "message") or text(ended, "message"),
        ready=bool(state.get("ready")),
        restarts=number(state, "restartCount"),
    )

"""Deployments and DaemonSets: how many of their pods there are, whether that is all, and what containers are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moyai.kube.objects.meta import number, part, rows, text, texts
from moyai.kube.resources import Json

#: Flags with which of several copies one alone works.
_ELECTION = frozenset({"--leader-elect=true", "--leader-election"})


@dataclass(frozen=True)
class Deployment:
    """``current``: whether its controller has seen the newest version of it. ``elected``: of several copies one alone works."""

    namespace: str
    name: str
    wanted: int = 1
    updated: int = 0
    ready: int = 0
    available: int = 0
    current: bool = True
    elected: bool = False

    @property
    def done(self) -> bool:
        """Whether its newest version runs with all its pods available."""
        return self.current and self.updated >= self.wanted and self.available >= self.wanted


@dataclass(frozen=True)
class DaemonSet:
    """``wanted``: on how many nodes it should run; 0 also where its controller has not counted yet. ``updated``: on how many
    its newest version is. ``current``: whether its controller has seen that version. ``image``: of its first container.
    ``held``: its pods get a newer version only when somebody deletes them."""

    namespace: str
    name: str
    wanted: int = 0
    updated: int = 0
    ready: int = 0
    current: bool = True
    image: str = ""
    held: bool = False

    @property
    def done(self) -> bool:
        """Whether it runs on every node that it is for, and on one at least; its newest version, but where pods are held."""
        return self.current and min(self.ready, self.ready if self.held else self.updated) >= max(1, self.wanted)


def parse_deployment(found: Json) -> Deployment:
    meta, spec, status = (part(found, key) for key in ("metadata", "spec", "status"))
    return Deployment(
        namespace=text(meta, "namespace"),
        name=str(meta["name"]),
        wanted=number(spec, "replicas", default=1),
        updated=number(status, "updatedReplicas"),
        ready=number(status, "readyReplicas"),
        available=number(status, "availableReplicas"),
        current=number(status, "observedGeneration") >= number(meta, "generation"),
        elected=any(
            not _ELECTION.isdisjoint(texts(container, "args"))
            for container in rows(part(spec, "template", "spec"), "containers")
        ),
    )


def parse_daemon_set(found: Json) -> DaemonSet:
    meta, status = part(found, "metadata"), part(found, "status")
    return DaemonSet(
        namespace=text(meta, "namespace"),
        name=str(meta["name"]),
        wanted=number(status, "desiredNumberScheduled"),
        updated=number(status, "updatedNumberScheduled"),
        ready=number(status, "numberReady"),
        current=number(status, "observedGeneration") >= number(meta, "generation"),
        image=first_image(found),
        held=text(part(found, "spec", "updateStrategy"), "type") == "OnDelete",
    )


def secret_variables(names: Iterable[str], *, secret: str) -> list[Json]:
    """Entries of a container's ``env`` whose values are the keys of the same names in a Secret."""
    return [{"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}} for name in names]


def first_image(workload: Json) -> str:
    """The image of the first container in a Deployment's or DaemonSet's pods; empty where it names none."""
    containers = rows(part(workload, "spec", "template", "spec"), "containers")
    return text(containers[0], "image") if containers else ""


def api_host(api_server: str) -> str:
    """Of ``host:port``; an address of IPv6 comes without its brackets."""
    return api_server.rpartition(":")[0].strip("[]")


def api_variables(api_server: str) -> list[Json]:
    """Entries of a container's ``env`` with which it finds the API at ``host:port``, not at the Service ``kubernetes``. None
    for an empty address."""
    if not api_server:
        return []
    return [
        {"name": "KUBERNETES_SERVICE_HOST", "value": api_host(api_server)},
        {"name": "KUBERNETES_SERVICE_PORT", "value": api_server.rpartition(":")[2]},
    ]


def apart(labels: Mapping[str, str]) -> Json:
    """A pod's ``affinity`` with which no two pods of these labels are on one machine."""
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": dict(labels)}}
    return {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}

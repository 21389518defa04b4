"""The cache of all pods, as policies and egress addresses read them: a process has one, whichever of the controllers run."""

from __future__ import annotations

from functools import partial

from moyai.kube.informer import Informer
from moyai.kube.objects.policy import Alike, PolicyPod, parse_policy_pod
from moyai.kube.resources import PODS
from moyai.kube.watching import Kube
from moyai.runtime.controllers import cache
from moyai.runtime.metrics import Metrics


def pod_cache(kube: Kube, metrics: Metrics) -> Informer[PolicyPod]:
    return cache(kube, PODS, parse=partial(parse_policy_pod, alike=Alike()), metrics=metrics)

"""Carries out the steps that end a cluster's work through Kubernetes.

Always holds: what is gone is success, and what does not end in time is reported and left to the steps that remove it from the
cloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from moyai.core.errors import NotFound
from moyai.core.progress import Progress
from moyai.kube.objects import parse_pod
from moyai.kube.resources import PODS, SERVICES
from moyai.lifecycle.detaching import volumes_detached
from moyai.lifecycle.drain import cordon
from moyai.lifecycle.execute.context import Context, Handler, handles
from moyai.lifecycle.services import services_end
from moyai.plan import steps as s


class Ending:
    def __init__(self, context: Context) -> None:
        self._context = context

    def handlers(self) -> Mapping[type[s.Step], Handler]:
        return dict(
            [
                handles(s.DeleteService, self._delete_service),
                handles(s.WaitServices, self._for_services),
                handles(s.CordonNode, self._cordon),
                handles(s.DeletePods, self._delete_pods),
                handles(s.WaitReleased, self._for_volumes),
            ]
        )

    def _delete_service(self, step: s.DeleteService, _: Progress) -> None:
        self._context.api().delete(SERVICES, step.service, namespace=step.namespace)

    def _for_services(self, step: s.WaitServices, progress: Progress) -> None:
        context = self._context
        left = services_end(context.api(), step.services, clock=context.clock, progress=progress)
        if left:
            progress.progress(f"{', '.join(left)} were not removed by Kubernetes in time; moyai removed them in the cloud")

    def _cordon(self, step: s.CordonNode, _: Progress) -> None:
        with suppress(NotFound):
            cordon(self._context.api(), step.node)

    def _delete_pods(self, step: s.DeletePods, _: Progress) -> None:
        api = self._context.api()
        for pod in map(parse_pod, api.list(PODS)):
            if step.claims.intersection((pod.namespace, name) for name in pod.claims):
                api.delete(PODS, pod.name, namespace=pod.namespace)

    def _for_volumes(self, step: s.WaitReleased, progress: Progress) -> None:
        context = self._context
        if not context.api().ready(timeout=2):
            progress.progress("the API does not answer any more; their machines are shut down")
            return
        driver = context.cloud.kind.volume_names.driver
        left = volumes_detached(context.api(), step.volumes, driver=driver, clock=context.clock, progress=progress)
        if left:
            progress.progress(f"{', '.join(left)} were not detached in time; their machines are shut down")

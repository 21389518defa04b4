"""What the users of a cluster have in it that an upgrade meets: disruption budgets, and deprecated APIs that somebody asks for.

Always holds: each API server counts for itself, since its own start, so what only another one was asked for is not seen.
Source of the metric: https://kubernetes.io/docs/reference/using-api/deprecation-policy/.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from moyai.kube.objects import object_key
from moyai.kube.objects.meta import number, part
from moyai.kube.quick import KubeApi
from moyai.kube.resources import DISRUPTION_BUDGETS, Json
from moyai.plan.cluster.preflight import Budget, ClusterUse, OldApi

_METRIC = "apiserver_requested_deprecated_apis"


def read_use(api: KubeApi) -> ClusterUse:
    budgets = tuple(_budget(one) for one in api.list(DISRUPTION_BUDGETS))
    return ClusterUse(budgets, tuple(dict.fromkeys(old_apis(api.metrics()))))


def old_apis(text: str) -> Iterator[OldApi]:
    """Of an API server's metrics; those without a version that removes them are left out."""
    # the whole text is megabytes long
    lines = [line for line in text.splitlines() if line.startswith(_METRIC)]
    for family in text_string_to_metric_families("\n".join((*lines, ""))):
        for sample in family.samples:
            labels = sample.labels
            removed = labels.get("removed_release", "")
            if sample.value and removed:
                version = "/".join(filter(None, (labels.get("group", ""), labels.get("version", ""))))
                yield OldApi(f"{labels.get('resource', '')} of {version}", removed)


def _budget(found: Json) -> Budget:
    status = part(found, "status")
    return Budget(object_key(found), number(status, "desiredHealthy"), number(status, "expectedPods"))

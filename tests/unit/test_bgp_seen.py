"""What users see of BGP: `moyai bgp`, ServiceBGPStatus objects."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from moyai.agent.bgp.seen import SeenBgp, SeenPath, SeenSession
from moyai.agent.service_statuses import BGP, ServiceStatuses
from moyai.core.errors import Retriable, UsageError
from moyai.diagnose.network.command_bgp import bgp_report
from moyai.kube.objects import NamespacedName, Node
from moyai.kube.resources import SERVICE_BGP_STATUSES
from tests.fakes.kubernetes import Kubernetes

UP = SeenSession("10.8.0.11", "node b", 64522, "Established", 5, "up", 1, 1)
DOWN = SeenSession("10.8.0.2", "router rt", 64512, "Active", 9, "", 0, 0)


class Api:
    """Agents on a and b; that of b does not answer."""

    def list(self, _resource: Any, *, namespace: str) -> list[Any]:
        labels = {"app.kubernetes.io/name": "moyai-agent"}
        other: dict[str, Any] = {"metadata": {"name": "other", "labels": {}}, "spec": {"nodeName": "c"}}
        agents = [{"metadata": {"name": f"agent-{one}", "labels": labels}, "spec": {"nodeName": one}} for one in "ab"]
        return [other, *agents] if namespace == "kube-system" else []

    def execute(self, _namespace: str, pod: str, *, command: list[str], timeout: float) -> str:
        assert command == ["moyai", "agent-bgp"]
        assert timeout > 0
        if pod != "agent-a":
            raise Retriable("no answer")
        return json.dumps(asdict(SeenBgp((UP, DOWN), (SeenPath("10.244.1.0/24", "10.8.0.11", True, ""),))))


def test_each_agent_is_asked_and_what_is_down_is_named() -> None:
    api: Any = Api()
    found = bgp_report(api, "demo")
    assert (set(found.nodes), dict(found.unread)) == ({"a"}, {"b": "no answer"})
    assert found.nodes["a"].sessions == (UP, DOWN)
    assert found.down == ["a has no session with router rt (10.8.0.2): Active"]
    assert json.loads(json.dumps(found.data()))["nodes"]["a"]["paths"][0]["prefix"] == "10.244.1.0/24"


def test_one_node_may_be_asked_and_one_without_an_agent_is_refused() -> None:
    api: Any = Api()
    assert set(bgp_report(api, "demo", node="a").nodes) == {"a"}
    with pytest.raises(UsageError, match="--on c: no agent runs"):
        bgp_report(api, "demo", node="c")


class Counted(Kubernetes):
    """``read``: how many objects each list had."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []

    async def list(self, resource: Any, **more: Any) -> Any:
        found = await super().list(resource, **more)
        self.read.append(len(found[0]))
        return found


async def test_each_node_has_a_status_of_its_own_that_ends_with_the_node() -> None:
    kube: Any = Counted()
    first, second = (ServiceStatuses(kube, name, kind=BGP, owner=lambda: Node("a", "uid")) for name in "ab")
    await first.sync({NamespacedName("default", "web"): ("rt", "xx")})
    await second.sync({NamespacedName("default", "web"): ("rt",)})
    shown = {one["status"]["node"]: one for one in kube.all(SERVICE_BGP_STATUSES)}
    assert {node: one["status"]["peers"] for node, one in shown.items()} == {"a": ["rt", "xx"], "b": ["rt"]}
    assert shown["a"]["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "uid"}]
    # each node reads its own ones alone: there are as many as nodes times Services
    read, _ = await kube.list(SERVICE_BGP_STATUSES, labels="metallb.io/node=a")
    assert [one["status"]["node"] for one in read] == ["a"]
    kube.read.clear()
    await ServiceStatuses(kube, "b", kind=BGP).sync({NamespacedName("default", "web"): ("rt",)})
    assert kube.read == [1]
    await first.sync({})
    assert [one["status"]["node"] for one in kube.all(SERVICE_BGP_STATUSES)] == ["b"]
    # what an earlier process of the node has left goes too
    await ServiceStatuses(kube, "b", kind=BGP).sync({})
    assert kube.all(SERVICE_BGP_STATUSES) == []

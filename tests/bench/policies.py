"""``python -m tests.bench.policies``: what a change costs with many network policies and pods, planned and applied. Needs root.

The node is a network namespace of its own with a real nftables table. A policy guards the pods of one application from
all but two others of its namespace, and lets them send to one namespace.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import click

from moyai.kube.objects.policy import Alike, parse_policy, parse_policy_pod
from moyai.linux import netns
from moyai.linux.libnftables import Nftables
from moyai.plan.network_policy.index import PolicyIndex
from moyai.plan.network_policy.nft_commands import changes, whole

_SPACE = "bench-policies"
_NAMESPACES = 100
#: Pods of this node; the kubelet's default is 110.
_LOCAL = 110
_TIMES = 15


def pod(number: int, *, applications: int, nodes: int) -> dict[str, Any]:
    namespace, application = number % _NAMESPACES, number // _NAMESPACES % applications
    return {
        "metadata": {
            "namespace": f"ns{namespace}",
            "name": f"pod{number}",
            "labels": {"app": f"app{application}", "tier": f"tier{number % 3}", "release": "stable"},
        },
        "spec": {"nodeName": f"node{number % nodes}", "containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {"podIP": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "phase": "Running"},
    }


def policy(number: int, *, applications: int) -> dict[str, Any]:
    namespace, application = number % _NAMESPACES, number // _NAMESPACES
    peers = [{"podSelector": {"matchLabels": {"app": f"app{(application + more) % applications}"}}} for more in (1, 2)]
    other = {"namespaceSelector": {"matchLabels": {"name": f"ns{(namespace + 1) % _NAMESPACES}"}}}
    return {
        "metadata": {"namespace": f"ns{namespace}", "name": f"policy{number}"},
        "spec": {
            "podSelector": {"matchLabels": {"app": f"app{application % applications}"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers, "ports": [{"port": 80}, {"port": "web"}]}],
            "egress": [{"to": [other]}],
        },
    }


@click.command()
@click.option("--policies", default=1000, show_default=True)
@click.option("--pods", default=10000, show_default=True)
def main(policies: int, pods: int) -> None:
    """Print the median and the worst of each kind of change, in milliseconds."""
    applications = max(1, policies // _NAMESPACES)
    nodes = max(1, pods // _LOCAL)
    made = [pod(number, applications=applications, nodes=nodes) for number in range(pods)]
    index = PolicyIndex("node0")
    alike = Alike()
    start = time.perf_counter()
    for number in range(_NAMESPACES):
        index.set_namespace(f"ns{number}", {"name": f"ns{number}"})
    for one in made:
        index.set_pod(_key(one), parse_policy_pod(one, alike))
    for number in range(policies):
        one = policy(number, applications=applications)
        index.set_policy(_key(one), parse_policy(one))
    planned = time.perf_counter()
    netns.add(_SPACE)
    try:
        with netns.inside(_SPACE):
            tables = Nftables()
            commands = whole(index.table.everything())
            tables.run(commands)
            elements = sum(len(held) for held in index.table.elements.values())
            click.echo(f"{policies} policies, {pods} pods, {index.isolated} of them guarded here, {elements} elements")
            click.echo(
                f"planned from nothing {planned - start:.2f} s, whole table applied {time.perf_counter() - planned:.2f} s"
            )
            here = next(one for one in made if one["spec"]["nodeName"] == "node0")
            far = next(one for one in made if one["spec"]["nodeName"] == "node1")
            mine = next(
                one
                for number in range(policies)
                if _namespace(one := policy(number, applications=applications)) == _namespace(here)
                and one["spec"]["podSelector"]["matchLabels"]["app"] == here["metadata"]["labels"]["app"]
            )
            _measure("a pod of this node goes and comes", index, tables=tables, change=_pod(index, here))
            _measure("a pod of another node goes and comes", index, tables=tables, change=_pod(index, far))
            _measure("a policy of this node's pods goes and comes", index, tables=tables, change=_policy(index, mine))
            tables.close()
    finally:
        netns.remove(_SPACE, empty=True)


def _measure(what: str, index: PolicyIndex, *, tables: Nftables, change: Callable[[bool], None]) -> None:
    planned: list[float] = []
    applied: list[float] = []
    for number in range(_TIMES * 2):
        start = time.perf_counter()
        change(bool(number % 2))
        commands = changes(index.table.take())
        middle = time.perf_counter()
        if commands:
            tables.run(commands)
        planned.append((middle - start) * 1000)
        applied.append((time.perf_counter() - middle) * 1000)
    both = [sum(pair) for pair in zip(planned, applied, strict=True)]
    medians = f"planned {statistics.median(planned):.2f}, applied {statistics.median(applied):.2f}"
    click.echo(f"{what}: {medians}, worst of both {max(both):.1f} ms")


def _pod(index: PolicyIndex, one: dict[str, Any]) -> Callable[[bool], None]:
    fact = parse_policy_pod(one)
    return lambda there: index.set_pod(_key(one), fact if there else None)


def _policy(index: PolicyIndex, one: dict[str, Any]) -> Callable[[bool], None]:
    fact = parse_policy(one)
    return lambda there: index.set_policy(_key(one), fact if there else None)


def _key(one: dict[str, Any]) -> str:
    return f"{_namespace(one)}/{one['metadata']['name']}"


def _namespace(one: dict[str, Any]) -> str:
    return one["metadata"]["namespace"]


if __name__ == "__main__":
    main()

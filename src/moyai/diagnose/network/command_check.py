"""`moyai net check`: pod probes on all nodes try all ways at the same time; where one fails, the walk says where it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from moyai.cloud.capabilities import Cloud
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import MoyaiError, Terminal
from moyai.core.progress import Reporter
from moyai.diagnose.network.check import CheckReport, Failure, report
from moyai.diagnose.network.nft_rules import Packet
from moyai.diagnose.network.probe_pods import ProbePods
from moyai.diagnose.network.read_network import View, read_kernels, read_view
from moyai.diagnose.network.trace_model import PacketEnd, Trace
from moyai.diagnose.network.walk import follow
from moyai.kube.objects import parse_node
from moyai.kube.resources import NODES, Json
from moyai.lifecycle.clusters import require_api
from moyai.lifecycle.record import Record
from moyai.linux.pod_probe import PORT

#: The name that each pod looks up; Kubernetes itself has it.
_NAME = "kubernetes.default"
#: So many failing ways are looked into.
_LOOKED_INTO = 6


def check(record: Record, cloud: Cloud, *, reporter: Reporter, clock: Clock | None = None) -> CheckReport:
    """Tries every way. Raises Terminal where there is nothing to try, Retriable where the API does not answer."""
    clock = clock or SystemClock()
    begun, api = clock.monotonic(), require_api(record)
    nodes = sorted(map(parse_node, api.list(NODES)), key=lambda one: one.name)
    if not nodes:
        raise Terminal(f"cluster {record.name} has no nodes")
    names = [one.name for one in nodes]
    ready = [one.name for one in nodes if one.ready]
    with ProbePods(api, clock=clock) as probes:
        probes.missing |= {one.name: "the node is not Ready" for one in nodes if not one.ready}
        with reporter.step("probes on the nodes"):
            services = probes.services(ready)
            addresses = probes.start("pod", ready)
            machines = probes.start("host", ready)
        with reporter.step("try all ways"):
            words = _words(addresses, services)
            answers = probes.each(
                {node: lambda node=node: probes.run("pod", node, program="pod_probe.py", words=words) for node in addresses}
            )
        found: dict[str, Json] = {node: one for node, one in answers.items() if not isinstance(one, MoyaiError)}
        probes.missing |= {node: str(error) for node, error in answers.items() if isinstance(error, MoyaiError)}
        with reporter.step("measure the paths between nodes"):
            paths = probes.each({node: lambda node=node: _measure(probes, node, machines=machines) for node in machines})
        measured: dict[str, Json] = {node: one for node, one in paths.items() if not isinstance(one, MoyaiError)}
        probes.missing |= {node: str(error) for node, error in paths.items() if isinstance(error, MoyaiError)}
        made = report(names, found, missing=probes.missing, measured=measured)
        if any(one.kind == "pods" for one in made.failures):
            with reporter.step("where packets end"):
                view = read_view(record, api, cloud=cloud)
                made = _explained(made, view, probes=probes, addresses=addresses)
    return replace(made, seconds=clock.monotonic() - begun)


def _measure(probes: ProbePods, node: str, *, machines: Mapping[str, str]) -> Json:
    others = {name: address for name, address in machines.items() if name != node}
    found: Json = probes.run("host", node, program="path_probe.py", words=[json.dumps(others, separators=(",", ":"))])
    return found


def _words(addresses: Mapping[str, str], services: Mapping[str, str]) -> list[str]:
    reached = {node: one for node, one in services.items() if node in addresses}
    return ["probe", json.dumps({"pods": addresses, "services": reached, "name": _NAME}, separators=(",", ":"))]


def _explained(made: CheckReport, view: View, *, probes: ProbePods, addresses: Mapping[str, str]) -> CheckReport:
    """The same failures, with where the packet ends as the hint."""
    chosen = [one for one in made.failures if one.kind == "pods"][:_LOOKED_INTO]
    nodes = {name for one in chosen for name in (one.source, one.target)}
    kernels, absent = read_kernels(probes, nodes, pods=addresses.values())
    world = view.world(kernels, absent)
    failures: list[Failure] = []
    for one in made.failures:
        if one in chosen:
            name = f"{probes.namespace}/pod-{one.source}"
            source = PacketEnd("pod", name, addresses[one.source], one.source)
            trace = follow(world, source, packet=Packet(source.address, addresses[one.target], "tcp", PORT))
            why = _end(trace)
            failures.append(replace(one, hint=why or one.hint))
        else:
            failures.append(one)
    return replace(made, failures=tuple(failures))


def _end(trace: Trace) -> str:
    if not trace.arrives and trace.outcome != "delivered":
        return trace.why
    if trace.back and not trace.back.arrives:
        return f"the answer does not come back: {trace.back.why}"
    return ""

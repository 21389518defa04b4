"""`moyai trace`: reads the kernels of the nodes that the packet passes, one after the other, until the walk ends.

With ``live``, marked packets are sent from where the trace begins, and the same nodes report where they see them.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from moyai.cloud.capabilities import Cloud
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import MoyaiError, UsageError
from moyai.core.progress import Reporter
from moyai.diagnose.network.kernel_facts import Kernel
from moyai.diagnose.network.live import LiveTrace, joined
from moyai.diagnose.network.nft_rules import Packet
from moyai.diagnose.network.places import find_source, find_target, first_packet
from moyai.diagnose.network.probe_pods import ProbePods
from moyai.diagnose.network.read_network import View, read_kernels, read_view
from moyai.diagnose.network.trace_model import PacketEnd, ServiceFacts, Trace
from moyai.diagnose.network.walk import follow
from moyai.kube.objects.meta import part, rows, text_map, texts
from moyai.kube.quick import KubeApi
from moyai.kube.resources import ENDPOINT_SLICES
from moyai.lifecycle.clusters import require_api
from moyai.lifecycle.record import Record

#: What fits into one call.
_MOST_ENDPOINTS = 500
#: What packets of a live trace may be; how many there are, seconds between them, and seconds that they are watched for.
LIVE = ("tcp", "udp", "icmp")
_SENT, _PAUSE, _WATCH = 6, 0.4, 5.0


@dataclass(frozen=True)
class TraceReport:
    source: PacketEnd
    target: PacketEnd
    packet: Packet
    trace: Trace
    live: LiveTrace | None = None

    def data(self) -> dict[str, Any]:
        return {
            "source": asdict(self.source),
            "target": asdict(self.target),
            "protocol": self.packet.protocol,
            "port": self.packet.port,
            **self.trace.data(),
            "live": self.live.data() if self.live else None,
        }


def trace(
    record: Record,
    cloud: Cloud,
    *,
    ends: tuple[str, str],
    namespace: str,
    port: tuple[str, int] | None,
    live: bool = False,
    reporter: Reporter,
    clock: Clock | None = None,
) -> TraceReport:
    """``ends``: as the user names them. UsageError for ends that are not there: then no probe is made."""
    clock, api = clock or SystemClock(), require_api(record)
    with reporter.step("look at the cluster"):
        view = read_view(record, api, cloud=cloud)
    source = find_source(ends[0], view.objects, namespace=namespace)
    target = find_target(ends[1], view.objects, namespace=namespace)
    packet = first_packet(source, target, objects=view.objects, port=port)
    if live and packet.protocol not in LIVE:
        raise UsageError(f"--live sends {', '.join(LIVE)}, not {packet.protocol}", hint="choose another --port")
    services = [one for one in view.objects.services if target.kind == "service" and one.key == target.name]
    pods = {source.address, *(_endpoints(api, services) if services else (target.address,))}
    sent: LiveTrace | None = None
    with ProbePods(api, clock=clock) as probes:
        with reporter.step("read the nodes' kernels"):
            found, kernels = _walked(probes, view, source=source, target=target, packet=packet, pods=pods)
        if live and source.node in kernels:
            with reporter.step("send packets and watch"):
                sent = _send(probes, source, packet=packet, kernels=kernels, port=view.network.vxlan.port)
    return TraceReport(source, target, packet, found, sent)


def _walked(
    probes: ProbePods, view: View, *, source: PacketEnd, target: PacketEnd, packet: Packet, pods: Collection[str]
) -> tuple[Trace, Mapping[str, Kernel]]:
    """The trace, and the kernels of the nodes on the way. ``pods``: addresses of the pods that the packet may come to."""
    kernels: dict[str, Kernel] = {}
    absent: dict[str, str] = {}
    wanted = {one.node for one in (source, target) if one.node}
    while True:
        more, lacking = read_kernels(probes, wanted, pods=pods)
        kernels |= more
        absent |= lacking
        found = follow(view.world(kernels, absent), source, packet=packet)
        if not found.missing or found.missing in absent:
            return found, kernels
        wanted = {found.missing}


def _send(probes: ProbePods, source: PacketEnd, *, packet: Packet, kernels: Mapping[str, Kernel], port: int) -> LiveTrace:
    """``port``: of VXLAN. Several packets, because a watcher may come late."""
    marks = [secrets.token_hex(4) for _ in range(_SENT)]
    pod = kernels[source.node].pods.get(source.address)
    watching = ["watch", str(_WATCH), ",".join(marks), str(port)]
    sending = ["send", pod.namespace if pod else "", packet.protocol, packet.source, packet.destination, str(packet.port)]
    program = partial(probes.run, "host", program="packet_watch.py")
    calls = {node: partial(program, node, words=watching) for node in kernels}
    # beside the watchers of the nodes, by a key that no node has
    calls[""] = partial(program, source.node, words=[*sending, ",".join(marks), str(_PAUSE)])
    found = probes.each(calls)
    if isinstance(failure := found.pop(""), MoyaiError):
        raise failure
    reports = {node: one for node, one in found.items() if not isinstance(one, MoyaiError)}
    return joined(reports, source=source.node, sent=len(marks))


def _endpoints(api: KubeApi, services: Iterable[ServiceFacts]) -> list[str]:
    """Addresses of the pods behind Services."""
    found: list[str] = []
    for service in services:
        for slice_ in api.list(ENDPOINT_SLICES, namespace=service.namespace):
            if text_map(part(slice_, "metadata"), "labels").get("kubernetes.io/service-name") == service.name:
                found += [address for one in rows(slice_, "endpoints") for address in texts(one, "addresses")]
    return sorted({one for one in found if "." in one})[:_MOST_ENDPOINTS]

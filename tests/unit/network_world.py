"""A cluster of three nodes as its kernels, its cloud and Kubernetes describe it, whole, for each mode of the pod network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from moyai.cloud.model import Port, Route, Router, SecurityGroupRule, SourceAddress
from moyai.diagnose.network.cloud_wire import CloudFacts
from moyai.diagnose.network.kernel_facts import Kernel, LinkFacts, NeighbourFacts, PodSpace, RouteFacts, VxlanFacts
from moyai.diagnose.network.trace_model import ServiceFacts, World
from moyai.kube.objects import NetworkPolicy, Node, PolicyPod, parse_node
from moyai.kube.resources import Json
from moyai.plan.network_policy.pod_index import PodIndex

PODS, NODES = "10.244.0.0/16", "10.8.0.0/24"
CNI, UPLINK, TUNNEL, VETH = 3, 2, 4, 10
SERVICE = ServiceFacts("default", "web", ("10.96.0.10",), (("tcp", 80),))
GROUP = "nodes"


def name(number: int) -> str:
    return f"n{number}"


def address(number: int) -> str:
    return f"10.8.0.1{number}"


def pod_address(number: int) -> str:
    return f"10.244.{number}.5"


def mac(number: int) -> str:
    return f"02:00:00:00:00:0{number}"


def node(number: int, backend: str = "vxlan") -> Node:
    prefix = "flannel.alpha.coreos.com/"
    data = f'{{"VNI":1,"VtepMAC":"{mac(number)}"}}' if backend == "vxlan" else "null"
    told = {"kube-subnet-manager": "true", "backend-type": backend, "backend-data": data, "public-ip": address(number)}
    return parse_node(
        {
            "metadata": {
                "name": name(number),
                "uid": f"uid-{number}",
                "annotations": {f"{prefix}{key}": value for key, value in told.items()},
            },
            "spec": {"podCIDR": f"10.244.{number}.0/24", "podCIDRs": [f"10.244.{number}.0/24"]},
            "status": {
                "addresses": [{"type": "InternalIP", "address": address(number)}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
    )


def kernel(number: int, mode: str, *, count: int = 3) -> Kernel:
    """Of one node; pods' namespaces have been looked through."""
    others = [one for one in range(1, count + 1) if one != number]
    tunnel = mode == "vxlan"
    links = {
        UPLINK: LinkFacts(UPLINK, "ens3", mtu=1450, mac=f"fa:16:3e:00:00:0{number}"),
        CNI: LinkFacts(CNI, "cni0", "bridge", mtu=1400 if tunnel else 1450),
        VETH: LinkFacts(VETH, "veth5", "veth", mtu=1400 if tunnel else 1450, master=CNI, peer=2),
    }
    routes = [
        RouteFacts("0.0.0.0/0", "10.8.0.1", UPLINK),
        RouteFacts(NODES, "", UPLINK, protocol=2, source=address(number)),
        RouteFacts(f"10.244.{number}.0/24", "", CNI, protocol=2, source=f"10.244.{number}.1"),
        RouteFacts(f"{address(number)}/32", "", UPLINK, table=255, kind="local"),
        RouteFacts(f"10.244.{number}.1/32", "", CNI, table=255, kind="local"),
    ]
    addresses = {address(number): UPLINK, f"10.244.{number}.1": CNI}
    neighbours: list[NeighbourFacts] = []
    entries: list[NeighbourFacts] = []
    if mode in ("vxlan", "host-gw"):
        routes.append(RouteFacts(PODS, protocol=77, metric=9999, kind="unreachable"))
    if mode == "host-gw":
        routes += [RouteFacts(f"10.244.{one}.0/24", address(one), UPLINK, protocol=77) for one in others]
    if tunnel:
        vxlan = VxlanFacts(1, 8472, address(number), UPLINK)
        links[TUNNEL] = LinkFacts(TUNNEL, "flannel.1", "vxlan", 1400, mac(number), vxlan=vxlan)
        addresses[f"10.244.{number}.0"] = TUNNEL
        routes += [RouteFacts(f"10.244.{one}.0/24", f"10.244.{one}.0", TUNNEL, protocol=77) for one in others]
        routes.append(RouteFacts(f"10.244.{number}.0/32", "", TUNNEL, table=255, kind="local"))
        neighbours = [NeighbourFacts(TUNNEL, f"10.244.{one}.0", mac(one), "permanent") for one in others]
        entries = [NeighbourFacts(TUNNEL, address(one), mac(one), "permanent") for one in others]
    inside = PodSpace(
        f"cni-{number}",
        LinkFacts(2, "eth0", "veth", mtu=1400 if tunnel else 1450, peer=VETH),
        (RouteFacts("0.0.0.0/0", f"10.244.{number}.1", 2), RouteFacts(f"10.244.{number}.0/24", "", 2)),
    )
    return Kernel(
        links=links,
        addresses=addresses,
        subnets={UPLINK: (NODES,), CNI: (f"10.244.{number}.0/24",)},
        routes=tuple(routes),
        neighbours=tuple(neighbours),
        entries=tuple(entries),
        tables=(*own_table(bare=not tunnel), *proxy_table(), *policy_chains()),
        pods={pod_address(number): inside},
        searched=True,
    )


def cloud(mode: str, *, count: int = 3) -> CloudFacts:
    pairs = mode in ("routes", "host-gw")
    ports = {
        name(one): Port(
            f"p{one}",
            name(one),
            "net",
            "ACTIVE",
            (address(one),),
            send_from=(SourceAddress(f"10.244.{one}.0/24"),) if pairs else (),
            security_group_ids=(GROUP,),
        )
        for one in range(1, count + 1)
    }
    rules = [
        SecurityGroupRule(GROUP, "egress"),
        SecurityGroupRule(GROUP, remote_group_id=GROUP),
        *([SecurityGroupRule(GROUP, remote_cidr=PODS)] if pairs else []),
    ]
    routes = [Route(f"10.244.{one}.0/24", address(one)) for one in range(1, count + 1)] if mode == "routes" else []
    return CloudFacts(ports, rules=tuple(rules), router=Router("r", "demo-router", "out", tuple(routes)))


def world(mode: str, *, policies: Sequence[NetworkPolicy] = (), **changes: Any) -> World:
    pods = PodIndex()
    pods.namespaces["default"] = {}
    for one in (1, 2, 3):
        pods.change(f"default/p{one}", PolicyPod("default", f"p{one}", name(one), {"app": f"p{one}"}, (pod_address(one),)))
    made = World(
        nodes=tuple(node(one, mode) for one in (1, 2, 3)),
        kernels={name(one): kernel(one, mode) for one in (1, 2, 3)},
        pod_range=PODS,
        node_range=NODES,
        pods=pods,
        policies=tuple(policies),
        services=(SERVICE,),
        cloud=cloud(mode),
    )
    return replace(made, **changes)


def changed(found: World, number: int, **changes: Any) -> World:
    """With another kernel of one node."""
    return replace(found, kernels={**found.kernels, name(number): replace(found.kernels[name(number)], **changes)})


def table(family: str, title: str) -> list[Json]:
    return [{"table": {"family": family, "name": title}}]


def chain(title: str, at: str, *, family: str = "ip", **hook: Any) -> Json:
    return {"chain": {"family": family, "table": title, "name": at, **hook}}


def rule(title: str, at: str, *expressions: Json) -> Json:
    return {"rule": {"family": "ip", "table": title, "chain": at, "expr": list(expressions)}}


def match(field: str, right: object, *, op: str = "==", protocol: str = "ip") -> Json:
    return {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}


def prefix(text: str) -> Json:
    base, _, length = text.partition("/")
    return {"prefix": {"addr": base, "len": int(length)}}


def own_table(*, bare: bool) -> tuple[Json, ...]:
    """As libnftables lists `plan.pod_network.node_files.rules`."""
    inside = [prefix(PODS), prefix("10.96.0.0/16"), *([prefix(NODES)] if bare else [])]
    hook: dict[str, Any] = {"type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}
    return (
        *table("ip", "moyai"),
        chain("moyai", "postrouting", **hook),
        rule(
            "moyai",
            "postrouting",
            match("saddr", prefix(PODS)),
            match("daddr", {"set": inside}, op="!="),
            {"counter": {"packets": 0, "bytes": 0}},
            {"masquerade": None},
        ),
    )


def proxy_table() -> tuple[Json, ...]:
    """As kube-proxy writes it for a Service with endpoints on the nodes 2 and 3, and one without any."""
    service = "service-AAAA-default/web/tcp/"
    ends = [f"endpoint-E{one}-default/web/tcp/__{pod_address(one)}/80" for one in (2, 3)]
    elements = [[{"concat": ["10.96.0.10", "tcp", 80]}, {"goto": {"target": service}}]]
    without = [[{"concat": ["10.96.0.11", "tcp", 80]}, {"goto": {"target": "reject-chain"}}]]
    choices = [[number, {"goto": {"target": end}}] for number, end in enumerate(ends)]
    found: list[Json] = [
        *table("ip", "kube-proxy"),
        chain("kube-proxy", service),
        {"map": {"family": "ip", "table": "kube-proxy", "name": "service-ips", "elem": elements}},
        {"map": {"family": "ip", "table": "kube-proxy", "name": "no-endpoint-services", "elem": without}},
        rule(
            "kube-proxy",
            service,
            match("daddr", "10.96.0.10"),
            match("dport", 80, protocol="tcp"),
            match("saddr", prefix(PODS), op="!="),
            {"jump": {"target": "mark-for-masquerade"}},
        ),
        rule(
            "kube-proxy",
            service,
            {"vmap": {"key": {"numgen": {"mode": "random", "mod": 2, "offset": 0}}, "data": {"set": choices}}},
        ),
    ]
    for number, end in zip((2, 3), ends, strict=True):
        found.append(
            rule("kube-proxy", end, match("saddr", pod_address(number)), {"jump": {"target": "mark-for-masquerade"}}),
        )
        left = {"meta": {"key": "l4proto"}}
        found.append(
            rule(
                "kube-proxy",
                end,
                {"match": {"op": "==", "left": left, "right": "tcp"}},
                {"dnat": {"addr": pod_address(number), "port": 8080}},
            )
        )
    return tuple(found)


def policy_chains(*keys: str) -> tuple[Json, ...]:
    hook: dict[str, Any] = {"type": "filter", "hook": "forward", "prio": -1, "policy": "accept"}
    return (
        chain("moyai-policy", "received", family="inet", **hook),
        *(chain("moyai-policy", f"{way}/{key}", family="inet") for key in keys for way in ("in", "out")),
    )

"""What Kubernetes' documentation says about a packet between two pods, evaluated naively, and random clusters to ask it about.

It shares no code with the planner that is tested against it.
"""

from __future__ import annotations

import ipaddress
import random
from typing import Any

Json = dict[str, Any]
NODE = "n1"
OUTSIDE = ("192.0.2.7", "198.51.100.9")
PROTOCOLS = ("TCP", "UDP", "SCTP")
NUMBERS = (53, 80, 81, 8080)


class Cluster:
    """Objects as the API has them, and what Kubernetes' documentation says about a packet between two addresses."""

    def __init__(self) -> None:
        self.namespaces: dict[str, Json] = {}
        self.pods: dict[str, Json] = {}
        self.policies: dict[str, Json] = {}

    def allowed(self, source: str, destination: str, *, protocol: str, port: int, nodes: tuple[str, ...] = (NODE,)) -> bool:
        """``nodes``: those whose policies count."""
        sender, receiver = self.at(source), self.at(destination)
        if source == destination:
            return True
        here = [one for one in (sender, receiver) if one and one["spec"]["nodeName"] in nodes]
        return all(
            self._direction(one, kind, other=other, address=address, receiver=receiver, port=(protocol, port))
            for one, kind, other, address in (
                (sender, "Egress", receiver, destination),
                (receiver, "Ingress", sender, source),
            )
            if one in here
        )

    def at(self, address: str) -> Json | None:
        return next((one for one in self.pods.values() if one["status"]["podIP"] == address), None)

    def _direction(
        self, pod: Json | None, kind: str, *, other: Json | None, address: str, receiver: Json | None, port: tuple[str, int]
    ) -> bool:
        if pod is None:
            return True
        mine = [
            one
            for one in self.policies.values()
            if one["metadata"]["namespace"] == pod["metadata"]["namespace"]
            and kind in types(one["spec"])
            and selects(one["spec"]["podSelector"], pod["metadata"]["labels"])
        ]
        if not mine:
            return True
        field, side = ("ingress", "from") if kind == "Ingress" else ("egress", "to")
        for policy in mine:
            for rule in policy["spec"].get(field, []):
                peers, ports = rule.get(side), rule.get("ports")
                if peers and not any(self._peer(one, policy, other=other, address=address) for one in peers):
                    continue
                if ports and not any(port_matches(one, receiver, port=port) for one in ports):
                    continue
                return True
        return False

    def _peer(self, peer: Json, policy: Json, *, other: Json | None, address: str) -> bool:
        if "ipBlock" in peer:
            block, one = peer["ipBlock"], ipaddress.ip_address(address)
            return one in ipaddress.ip_network(block["cidr"]) and not any(
                one in ipaddress.ip_network(no) for no in block.get("except", [])
            )
        if other is None:
            return False
        namespace = other["metadata"]["namespace"]
        if "namespaceSelector" in peer:
            if not selects(peer["namespaceSelector"], self.namespaces[namespace]["metadata"]["labels"]):
                return False
        elif namespace != policy["metadata"]["namespace"]:
            return False
        return selects(peer.get("podSelector", {}), other["metadata"]["labels"])


def types(spec: Json) -> list[str]:
    """Ingress always, unless the policy says otherwise; Egress where it has a rule for that."""
    return spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


def selects(selector: Json, labels: dict[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for one in selector.get("matchExpressions", []):
        key, operator, values = one["key"], one["operator"], one.get("values", [])
        held = {
            "In": key in labels and labels[key] in values,
            "NotIn": key not in labels or labels[key] not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not held[operator]:
            return False
    return True


def port_matches(said: Json, receiver: Json | None, *, port: tuple[str, int]) -> bool:
    protocol, number = port
    if said.get("protocol", "TCP") != protocol:
        return False
    wanted = said.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        ports: list[Json] = receiver["spec"]["containers"][0]["ports"] if receiver else []
        return any(p["name"] == wanted and p.get("protocol", "TCP") == protocol and p["containerPort"] == number for p in ports)
    return wanted <= number <= said.get("endPort", wanted)


class Dice:
    """Random objects; few values, so that they meet."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def labels(self) -> dict[str, str]:
        return {key: self.random.choice("xyz") for key in "abc" if self.random.random() < 0.6}

    def selector(self) -> Json:
        found: Json = {}
        if self.random.random() < 0.5:
            found["matchLabels"] = {self.random.choice("abc"): self.random.choice("xyz")}
        if self.random.random() < 0.3:
            operator = self.random.choice(["In", "NotIn", "Exists", "DoesNotExist"])
            values = {"values": self.random.sample("xyz", self.random.randint(1, 2))} if operator.endswith("In") else {}
            found["matchExpressions"] = [{"key": self.random.choice("abc"), "operator": operator, **values}]
        return found

    def namespace(self, name: str) -> Json:
        return {"metadata": {"name": name, "labels": self.labels()}}

    def pod(self, namespace: str, name: str, *, address: str) -> Json:
        ports = [
            {"name": said, "containerPort": self.random.choice(NUMBERS), "protocol": self.random.choice(PROTOCOLS)}
            for said in ("http", "dns")
            if self.random.random() < 0.7
        ]
        return {
            "metadata": {"namespace": namespace, "name": name, "labels": self.labels()},
            "spec": {"nodeName": self.random.choice([NODE, "n2"]), "containers": [{"ports": ports}]},
            "status": {"podIP": address, "phase": "Running"},
        }

    def policy(self, namespace: str, name: str) -> Json:
        types = self.random.choice([["Ingress"], ["Egress"], ["Ingress", "Egress"]])
        spec: Json = {"podSelector": self.selector(), "policyTypes": types}
        for kind, field, side in (("Ingress", "ingress", "from"), ("Egress", "egress", "to")):
            if kind in types:
                spec[field] = [self.rule(side) for _ in range(self.random.randint(0, 2))]
        return {"metadata": {"namespace": namespace, "name": name}, "spec": spec}

    def rule(self, side: str) -> Json:
        found: Json = {}
        if self.random.random() < 0.8:
            found[side] = [self.peer() for _ in range(self.random.randint(1, 2))]
        if self.random.random() < 0.6:
            found["ports"] = [self.port() for _ in range(self.random.randint(1, 3))]
        return found

    def peer(self) -> Json:
        match self.random.randint(0, 3):
            case 0:
                return {"podSelector": self.selector()}
            case 1:
                return {"namespaceSelector": self.selector()}
            case 2:
                return {"namespaceSelector": self.selector(), "podSelector": self.selector()}
            case _:
                block: Json = {"cidr": self.random.choice(["10.0.0.0/8", "0.0.0.0/0", "192.0.2.0/24"])}
                if block["cidr"] != "192.0.2.0/24" and self.random.random() < 0.6:
                    block["except"] = self.random.sample(["10.0.0.0/30", "10.0.0.2/31", "10.0.0.8/29"], 2)
                return {"ipBlock": block}

    def port(self) -> Json:
        found: Json = {"protocol": self.random.choice(PROTOCOLS)}
        match self.random.randint(0, 3):
            case 0:
                found["port"] = self.random.choice(NUMBERS)
            case 1:
                found |= {"port": 60, "endPort": self.random.choice([80, 100])}
            case 2:
                found["port"] = self.random.choice(["http", "dns"])
            case _:
                pass
        return found

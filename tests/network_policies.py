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
        #: ClusterNetworkPolicy objects by name.
        self.tiers: dict[str, Json] = {}
        #: Whether a policy on trial would have dropped the packet of the last question.
        self.noted = False

    def allowed(self, source: str, destination: str, *, protocol: str, port: int, nodes: tuple[str, ...] = (NODE,)) -> bool:
        """``nodes``: those whose policies count."""
        sender, receiver = self.at(source), self.at(destination)
        self.noted = False
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
        said = self._tier("Admin", pod, kind=kind, other=other, address=address, receiver=receiver, port=port)
        if said in ("Accept", "Deny"):
            return said == "Accept"
        mine = [
            one
            for one in self.policies.values()
            if one["metadata"]["namespace"] == pod["metadata"]["namespace"]
            and kind in types(one["spec"])
            and selects(one["spec"]["podSelector"], pod["metadata"]["labels"])
        ]
        trial = [one for one in mine if one["metadata"].get("annotations", {}).get("policy.moyai.dev/trial") == "true"]
        if len(trial) == len(mine) and not self._permit(
            trial, kind, other=other, address=address, receiver=receiver, port=port
        ):
            self.noted |= bool(trial)
        mine = [one for one in mine if one not in trial]
        if not mine:
            said = self._tier("Baseline", pod, kind=kind, other=other, address=address, receiver=receiver, port=port)
            return said != "Deny"
        return self._permit(mine, kind, other=other, address=address, receiver=receiver, port=port)

    def _permit(
        self, policies: list[Json], kind: str, *, other: Json | None, address: str, receiver: Json | None, port: tuple[str, int]
    ) -> bool:
        """Whether one of these, which select the pod, permits the packet."""
        field, side = ("ingress", "from") if kind == "Ingress" else ("egress", "to")
        for policy in policies:
            for rule in policy["spec"].get(field, []):
                peers, ports = rule.get(side), rule.get("ports")
                if peers and not any(self._peer(one, policy, other=other, address=address) for one in peers):
                    continue
                if ports and not any(port_matches(one, receiver, port=port) for one in ports):
                    continue
                return True
        return False

    def _tier(
        self, tier: str, pod: Json, *, kind: str, other: Json | None, address: str, receiver: Json | None, port: tuple[str, int]
    ) -> str:
        """The action of the first rule that is about the packet, empty for none."""
        field, side = ("ingress", "from") if kind == "Ingress" else ("egress", "to")
        mine = [one for one in self.tiers.values() if one["spec"]["tier"] == tier]
        for policy in sorted(mine, key=lambda one: (one["spec"]["priority"], one["metadata"]["name"])):
            if not self._tier_peer(policy["spec"]["subject"], pod, address=""):
                continue
            for rule in policy["spec"].get(field, []):
                if not any(self._tier_peer(one, other, address=address) for one in rule[side]):
                    continue
                if rule.get("protocols") and not any(_tier_port(one, receiver, port=port) for one in rule["protocols"]):
                    continue
                return rule["action"]
        return ""

    def _tier_peer(self, peer: Json, pod: Json | None, *, address: str) -> bool:
        if "networks" in peer:
            return any(ipaddress.ip_address(address) in ipaddress.ip_network(one) for one in peer["networks"])
        if pod is None:
            return False
        labels = self.namespaces[pod["metadata"]["namespace"]]["metadata"]["labels"]
        if "namespaces" in peer:
            return selects(peer["namespaces"], labels)
        both = peer["pods"]
        return selects(both["namespaceSelector"], labels) and selects(both["podSelector"], pod["metadata"]["labels"])

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


def _tier_port(said: Json, receiver: Json | None, *, port: tuple[str, int]) -> bool:
    protocol, number = port
    if name := said.get("destinationNamedPort"):
        return port_matches({"port": name, "protocol": protocol}, receiver, port=port)
    match = said.get(protocol.lower())
    if match is None:
        return False
    wanted = match["destinationPort"]
    limits = wanted.get("range", {"start": wanted.get("number"), "end": wanted.get("number")})
    return limits["start"] <= number <= limits["end"]


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
        meta: Json = {"namespace": namespace, "name": name}
        if self.random.random() < 0.3:
            meta["annotations"] = {"policy.moyai.dev/trial": "true"}
        return {"metadata": meta, "spec": spec}

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

    def cluster_policy(self, name: str) -> Json:
        spec: Json = {
            "tier": self.random.choice(["Admin", "Baseline"]),
            "priority": self.random.randint(0, 2),
            "subject": self.tier_pods(),
        }
        for field, side in (("ingress", "from"), ("egress", "to")):
            if self.random.random() < 0.7:
                spec[field] = [self.tier_rule(side) for _ in range(self.random.randint(1, 3))]
        return {"metadata": {"name": name}, "spec": spec}

    def tier_rule(self, side: str) -> Json:
        peers = [self.tier_pods() for _ in range(self.random.randint(1, 2))]
        if side == "to" and self.random.random() < 0.4:
            peers.append({"networks": self.random.sample(["10.0.0.0/30", "0.0.0.0/0", "192.0.2.0/24"], 2)})
        found: Json = {"action": self.random.choice(["Accept", "Deny", "Pass"]), side: peers}
        if self.random.random() < 0.5:
            found["protocols"] = [self.tier_port() for _ in range(self.random.randint(1, 2))]
        return found

    def tier_pods(self) -> Json:
        if self.random.random() < 0.5:
            return {"namespaces": self.selector()}
        return {"pods": {"namespaceSelector": self.selector(), "podSelector": self.selector()}}

    def tier_port(self) -> Json:
        if self.random.random() < 0.3:
            return {"destinationNamedPort": self.random.choice(["http", "dns"])}
        port = self.random.choice([{"number": self.random.choice(NUMBERS)}, {"range": {"start": 60, "end": 90}}])
        return {self.random.choice(PROTOCOLS).lower(): {"destinationPort": port}}

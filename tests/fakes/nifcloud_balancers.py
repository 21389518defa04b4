"""The load balancers of the small NIFCLOUD account: pairs of ports, each with check, members and filter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.fakes.nifcloud_calls import Call, Refused, missing, taken


class WireBalancers:
    """``balancers``: name → its pairs, as DescribeLoadBalancers has them. ``elbs``: name → one description."""

    def __init__(self) -> None:
        self.balancers: dict[str, list[dict[str, Any]]] = {}
        self.elbs: dict[str, dict[str, Any]] = {}
        self.instances: dict[str, dict[str, Any]] = {}

    def later(self, work: Callable[[], object]) -> None:
        raise NotImplementedError

    # ---- L4

    def do_describe_load_balancers(self, _: Call) -> dict[str, Any]:
        shown = [pair for pairs in self.balancers.values() for pair in pairs]
        return {"DescribeLoadBalancersResult": {"LoadBalancerDescriptions": shown}}

    def _add(self, call: Call) -> None:
        name = call["LoadBalancerName"]
        port, node = int(call["Listeners.member.1.LoadBalancerPort"]), int(call["Listeners.member.1.InstancePort"])
        pairs = self.balancers.setdefault(name, [])
        if any(_listener(one)["LoadBalancerPort"] == port for one in pairs):
            raise Refused("Client.Inoperable.LoadBalancerPort.AlreadyExists", "the port is taken")
        if len(pairs) == 3:
            raise Refused("Client.ResourceLimit.LoadBalancerPort", "three ports")
        listener = {"LoadBalancerPort": port, "InstancePort": node, "BalancingType": 1, "Protocol": "custom"}
        pairs.append(
            {
                "LoadBalancerName": name,
                "DNSName": "198.51.100.7",
                "NetworkVolume": int(call["NetworkVolume"] or (pairs[0]["NetworkVolume"] if pairs else 10)),
                "AccountingType": call["AccountingType"] or "2",
                "PolicyType": call["PolicyType"] or "standard",
                "ListenerDescriptions": [{"Listener": listener}],
                "HealthCheck": {"Target": "ICMP", "Interval": 5, "UnhealthyThreshold": 1},
                "Filter": {"FilterType": "1", "IPAddresses": [{"IPAddress": "*.*.*.*"}]},
                "Instances": [],
            }
        )

    def do_create_load_balancer(self, call: Call) -> dict[str, Any]:
        if call["LoadBalancerName"] in self.balancers:
            raise taken("LoadBalancer")
        self._add(call)
        return {"CreateLoadBalancerResult": {"DNSName": "198.51.100.7"}}

    def do_register_port_with_load_balancer(self, call: Call) -> dict[str, Any]:
        self._add(call)
        return {}

    def _pair(self, call: Call, place: str = "") -> dict[str, Any]:
        key = (int(call[f"{place}LoadBalancerPort"]), int(call[f"{place}InstancePort"]))
        for one in self.balancers.get(call["LoadBalancerName"], []):
            if (_listener(one)["LoadBalancerPort"], _listener(one)["InstancePort"]) == key:
                return one
        raise missing("LoadBalancerPort")

    def do_configure_health_check(self, call: Call) -> dict[str, Any]:
        self._pair(call)["HealthCheck"] = {
            "Target": call["HealthCheck.Target"],
            "Interval": int(call["HealthCheck.Interval"]),
            "UnhealthyThreshold": int(call["HealthCheck.UnhealthyThreshold"]),
        }
        return {}

    def do_set_filter_for_load_balancer(self, call: Call) -> dict[str, Any]:
        shown = self._pair(call)["Filter"]
        has = {one["IPAddress"] for one in shown["IPAddresses"]} - {"*.*.*.*"}
        for one in call.groups("IPAddresses.member"):
            (has.add if one["AddOnFilter"] == "true" else has.discard)(one["IPAddress"])
        shown["IPAddresses"] = [{"IPAddress": one} for one in sorted(has) or ["*.*.*.*"]]
        return {}

    def _servers(self, call: Call) -> list[dict[str, str]]:
        names = [one["InstanceId"] for one in call.groups("Instances.member")]
        if any(name not in self.instances for name in names):
            raise missing("Instance")
        return [{"InstanceId": name} for name in names]

    def do_register_instances_with_load_balancer(self, call: Call) -> dict[str, Any]:
        pair, servers = self._pair(call), self._servers(call)
        if any(one in pair["Instances"] for one in servers):
            raise Refused("Client.Inoperable.LoadBalancer.HavingRegisteredInstance", "registered")
        pair["Instances"] += servers
        return {}

    def do_deregister_instances_from_load_balancer(self, call: Call) -> dict[str, Any]:
        pair, servers = self._pair(call), self._servers(call)
        pair["Instances"] = [one for one in pair["Instances"] if one not in servers]
        return {}

    def do_update_load_balancer(self, call: Call) -> dict[str, Any]:
        if volume := call["NetworkVolumeUpdate"]:
            for one in self.balancers[call["LoadBalancerName"]]:
                one["NetworkVolume"] = int(volume)
        if accounting := call["AccountingTypeUpdate"]:
            for one in self.balancers[call["LoadBalancerName"]]:
                one["NextMonthAccountingType"] = accounting
        if call["ListenerUpdate.LoadBalancerPort"]:
            listener = _listener(self._pair(call, "ListenerUpdate."))
            for key in ("LoadBalancerPort", "InstancePort", "BalancingType"):
                listener[key] = int(call[f"ListenerUpdate.Listener.{key}"])
        return {}

    def do_delete_load_balancer(self, call: Call) -> dict[str, Any]:
        pairs = self.balancers.get(call["LoadBalancerName"], [])
        pairs.remove(self._pair(call))
        if not pairs:
            del self.balancers[call["LoadBalancerName"]]
        return {}

    # ---- elastic load balancers: each change makes them busy

    def do_nifty_describe_elastic_load_balancers(self, _: Call) -> dict[str, Any]:
        shown = list(self.elbs.values())
        return {"NiftyDescribeElasticLoadBalancersResult": {"ElasticLoadBalancerDescriptions": shown}}

    def _busy(self, call: Call) -> dict[str, Any]:
        found = self.elbs.get(call["ElasticLoadBalancerName"])
        if found is None:
            raise missing("ElasticLoadBalancer")
        if found["State"] != "available":
            raise Refused("Client.ResourceIncorrectState.ElasticLoadBalancer.Processing", "busy")
        found["State"] = "pending"
        self.later(lambda: found.update(State="available", DNSName="198.51.100.8"))
        return found

    def _elb_listener(self, call: Call) -> dict[str, Any]:
        key = (call["Protocol"], int(call["ElasticLoadBalancerPort"]), int(call["InstancePort"]))
        for one in self._busy(call)["ElasticLoadBalancerListenerDescriptions"]:
            listener = one["Listener"]
            if (listener["Protocol"], listener["ElasticLoadBalancerPort"], listener["InstancePort"]) == key:
                return listener
        raise missing("Protocol.or.ElasticLoadBalancerPort")

    def do_nifty_create_elastic_load_balancer(self, call: Call) -> dict[str, Any]:
        name = call["ElasticLoadBalancerName"]
        if name in self.elbs:
            raise taken("ElasticLoadBalancer")
        arms = [
            {
                "NetworkId": one["NetworkId"],
                "IpAddress": one.get("IpAddress", ""),
                "IsVipNetwork": one["IsVipNetwork"] == "true",
                "SystemIpAddresses": [
                    {"SystemIpAddress": value} for key, value in one.items() if key.startswith("SystemIpAddresses.")
                ],
            }
            for one in call.groups("NetworkInterface")
        ]
        self.elbs[name] = {
            "ElasticLoadBalancerName": name,
            "State": "available",
            "NetworkVolume": call["NetworkVolume"],
            "AccountingType": call["AccountingType"],
            "AvailabilityZones": [call["AvailabilityZones.member.1"]],
            "NetworkInterfaces": arms,
            "ElasticLoadBalancerListenerDescriptions": [],
        }
        self._elb_add(call)
        return {}

    def _elb_add(self, call: Call) -> None:
        for one in call.groups("Listeners.member"):
            listener: dict[str, Any] = {"Protocol": one["Protocol"], "Instances": [], "BalancingType": 1}
            listener |= {key: int(one[key]) for key in ("ElasticLoadBalancerPort", "InstancePort")}
            listener["HealthCheck"] = {"Target": "ICMP", "Interval": 5, "UnhealthyThreshold": 1}
            self._busy(call)["ElasticLoadBalancerListenerDescriptions"].append({"Listener": listener})

    def do_nifty_register_port_with_elastic_load_balancer(self, call: Call) -> dict[str, Any]:
        self._elb_add(call)
        return {}

    def do_nifty_configure_elastic_load_balancer_health_check(self, call: Call) -> dict[str, Any]:
        check: dict[str, Any] = {"Target": call["HealthCheck.Target"]}
        check |= {key: int(call[f"HealthCheck.{key}"]) for key in ("Interval", "UnhealthyThreshold")}
        self._elb_listener(call)["HealthCheck"] = check
        return {}

    def do_nifty_register_instances_with_elastic_load_balancer(self, call: Call) -> dict[str, Any]:
        servers = self._servers(call)
        self._elb_listener(call)["Instances"] += servers
        return {}

    def do_nifty_deregister_instances_from_elastic_load_balancer(self, call: Call) -> dict[str, Any]:
        servers, listener = self._servers(call), self._elb_listener(call)
        listener["Instances"] = [one for one in listener["Instances"] if one not in servers]
        return {}

    def do_nifty_modify_elastic_load_balancer_attributes(self, call: Call) -> dict[str, Any]:
        listener = self._elb_listener(call)
        for one in call.groups("LoadBalancerAttributes.AdditionalAttributes.member"):
            key, value = one["Key"][0].upper() + one["Key"][1:], one["Value"]
            listener[key] = value if key == "Protocol" else int(value)
        return {}

    def do_nifty_update_elastic_load_balancer(self, call: Call) -> dict[str, Any]:
        found = self._busy(call)
        if volume := call["NetworkVolumeUpdate"]:
            found["NetworkVolume"] = volume
        if accounting := call["AccountingTypeUpdate"]:
            found["NextMonthAccountingType"] = accounting
        return {}

    def do_nifty_delete_elastic_load_balancer(self, call: Call) -> dict[str, Any]:
        listener, found = self._elb_listener(call), self.elbs[call["ElasticLoadBalancerName"]]
        found["ElasticLoadBalancerListenerDescriptions"].remove({"Listener": listener})
        if not found["ElasticLoadBalancerListenerDescriptions"]:
            del self.elbs[call["ElasticLoadBalancerName"]]
        return {}


def _listener(pair: dict[str, Any]) -> dict[str, Any]:
    return pair["ListenerDescriptions"][0]["Listener"]

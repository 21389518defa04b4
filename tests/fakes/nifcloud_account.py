"""A small account of NIFCLOUD behind the wire of unit tests: what exists, and what each call does to it after a while."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection
from typing import Any

from tests.fakes.clock import FakeClock
from tests.fakes.nifcloud_balancers import WireBalancers
from tests.fakes.nifcloud_calls import Call, Refused, missing, taken


class WireAccount(WireBalancers):
    """Tables of what exists, as the answers of Describe… calls have it. ``seconds``: how long each piece of work takes."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.clock, self.seconds = clock, 5.0
        self.volumes: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.lans: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, dict[str, Any]] = {}
        self.addresses: dict[str, dict[str, Any]] = {}
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._number = 0

    def do(self, call: Call) -> dict[str, Any]:
        """The answer of a call, with all effects that are due by now."""
        now = self.clock.monotonic()
        due = [work for when, work in self._later if when <= now]
        self._later = [one for one in self._later if one[0] > now]
        for work in due:
            work()
        return getattr(self, f"do_{_snake(call.operation)}")(call) or {}

    def later(self, work: Callable[[], object]) -> None:
        self._later.append((self.clock.monotonic() + self.seconds, work))

    def new(self, prefix: str) -> str:
        self._number += 1
        return f"{prefix}{self._number:08d}"

    # ---- servers

    def server(self, name: str, *, description: str = "", zone: str = "east-11", state: str = "running") -> dict[str, Any]:
        """A server that is there, made by whomever ``description`` says."""
        made = {
            "InstanceUniqueId": self.new("i-"),
            "InstanceId": name,
            "Description": description,
            "InstanceState": {"Name": state},
            "Placement": {"AvailabilityZone": zone},
            "InstanceType": "e-medium4",
            "IpAddress": "203.0.113.5",
            "PrivateIpAddress": "10.0.0.5",
            "group": "",
            "NetworkInterfaceSet": list[dict[str, Any]](),
        }
        self.instances[name] = made
        return made

    def _instance(self, name: str) -> dict[str, Any]:
        if name not in self.instances:
            raise missing("Instance")
        return self.instances[name]

    def do_describe_instances(self, _: Call) -> dict[str, Any]:
        shown: list[dict[str, Any]] = []
        for one in self.instances.values():
            disks = [{"Ebs": {"VolumeId": name}} for name, disk in self.volumes.items() if disk["server"] == one["InstanceId"]]
            body = {key: value for key, value in one.items() if key != "group"} | {"BlockDeviceMapping": disks}
            shown.append({"GroupSet": [{"GroupId": one["group"]}] if one["group"] else [], "InstancesSet": [body]})
        return {"ReservationSet": shown}

    def do_run_instances(self, call: Call) -> dict[str, Any]:
        name = call["InstanceId"]
        if name in self.instances:
            raise taken("Instance")
        made = self.server(name, description=call["Description"], zone=call["Placement.AvailabilityZone"], state="pending")
        made["InstanceType"], made["group"] = call["InstanceType"], call["SecurityGroup.1"]
        base64.b64decode(call["UserData"] or "", validate=True)
        for nic in call.groups("NetworkInterface"):
            lan = next((one for one in self.lans.values() if one["PrivateLanName"] == nic.get("NetworkName")), None)
            network = lan["NetworkId"] if lan else nic["NetworkId"]
            shown = {"NiftyNetworkId": network, "PrivateIpAddress": "10.0.0.5"}
            made["NetworkInterfaceSet"].append(shown | ({"NiftyNetworkName": nic["NetworkName"]} if lan else {}))
        self.later(lambda: made["InstanceState"].update(Name="running"))
        return {"InstancesSet": [{"InstanceId": name, "InstanceUniqueId": made["InstanceUniqueId"]}]}

    def _state(self, call: Call, begin: str, *, goal: str) -> dict[str, Any]:
        one = self._instance(call["InstanceId.1"])
        one["InstanceState"] = {"Name": begin}
        self.later(lambda: one.update(InstanceState={"Name": goal}))
        return {}

    def do_stop_instances(self, call: Call) -> dict[str, Any]:
        return self._state(call, "pending", goal="stopped")

    def do_start_instances(self, call: Call) -> dict[str, Any]:
        return self._state(call, "pending", goal="running")

    def do_reboot_instances(self, call: Call) -> dict[str, Any]:
        return self._state(call, "pending", goal="running")

    def do_terminate_instances(self, call: Call) -> dict[str, Any]:
        if self._instance(call["InstanceId.1"])["InstanceState"]["Name"] != "stopped":
            raise Refused("Client.Inoperable.Instance.NotStopped", "stop it first")
        del self.instances[call["InstanceId.1"]]
        return {}

    def do_modify_instance_attribute(self, call: Call) -> dict[str, Any]:
        one = self._instance(call["InstanceId"])
        one["group" if call["Attribute"] == "groupId" else "Description"] = call["Value"]
        return {}

    def do_describe_instance_attribute(self, call: Call) -> dict[str, Any]:
        name = self._instance(call["InstanceId"])["InstanceId"]
        disks = [disk for disk in self.volumes.values() if disk["server"] == name]
        return {
            "BlockDeviceMapping": [
                {"DeviceName": f"SCSI (0:{number})", "Ebs": {"VolumeId": disk["VolumeId"]}}
                for number, disk in enumerate(disks, 1)
            ]
        }

    def do_describe_availability_zones(self, _: Call) -> dict[str, Any]:
        zones = ("east-11", "east-12", "east-13")
        return {"AvailabilityZoneInfo": [{"ZoneName": zone, "ZoneState": "available"} for zone in zones]}

    def do_describe_regions(self, _: Call) -> dict[str, Any]:
        return {"RegionInfo": [{"RegionName": "east-1"}]}

    def do_describe_images(self, _: Call) -> dict[str, Any]:
        return {"ImagesSet": [{"ImageId": "283", "Name": "Ubuntu Server 24.04 LTS", "ImageState": "available"}]}

    def do_describe_key_pairs(self, _: Call) -> dict[str, Any]:
        return {"KeySet": list(self.keys.values())}

    def do_import_key_pair(self, call: Call) -> dict[str, Any]:
        if call["KeyName"] in self.keys:
            raise taken("KeyName")
        self.keys[call["KeyName"]] = {"KeyName": call["KeyName"], "Description": call["Description"]}
        return {}

    def do_delete_key_pair(self, call: Call) -> dict[str, Any]:
        if self.keys.pop(call["KeyName"], None) is None:
            raise missing("KeyPair")
        return {}

    # ---- private LANs and firewall groups

    def do_nifty_describe_private_lans(self, _: Call) -> dict[str, Any]:
        def users(network: str) -> list[dict[str, str]]:
            cards = [(name, nic) for name, one in self.instances.items() for nic in one["NetworkInterfaceSet"]]
            return [{"InstanceId": name} for name, nic in cards if nic["NiftyNetworkId"] == network]

        return {"PrivateLanSet": [{"InstancesSet": users(name)} | one for name, one in self.lans.items()]}

    def do_nifty_create_private_lan(self, call: Call) -> dict[str, Any]:
        name = call["PrivateLanName"]
        if any(one["PrivateLanName"] == name for one in self.lans.values()):
            raise taken("PrivateLanName")
        made = {key: call[key] for key in ("PrivateLanName", "Description", "CidrBlock", "AvailabilityZone")}
        made |= {"NetworkId": self.new("net-"), "State": "pending"}
        self.lans[made["NetworkId"]] = made
        self.later(lambda: made.update(State="available"))
        return {"PrivateLan": dict(made)}

    def do_nifty_delete_private_lan(self, call: Call) -> dict[str, Any]:
        if call["NetworkId"] not in self.lans:
            raise missing("NetworkId")
        del self.lans[call["NetworkId"]]
        return {}

    def do_describe_security_groups(self, _: Call) -> dict[str, Any]:
        def users(group: str) -> list[dict[str, str]]:
            return [{"InstanceId": name} for name, one in self.instances.items() if one["group"] == group]

        return {"SecurityGroupInfo": [{"InstancesSet": users(name)} | one for name, one in self.groups.items()]}

    def do_create_security_group(self, call: Call) -> dict[str, Any]:
        if call["GroupName"] in self.groups:
            raise taken("SecurityGroup")
        made = {key: call[key] for key in ("GroupName", "GroupDescription")}
        self.groups[call["GroupName"]] = made | {"GroupStatus": "applied", "IpPermissions": []}
        return {"Return": True}

    def do_delete_security_group(self, call: Call) -> dict[str, Any]:
        if self.groups.pop(call["GroupName"], None) is None:
            raise missing("SecurityGroup")
        return {"Return": True}

    def _rules(self, call: Call) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        group = self.groups.get(call["GroupName"])
        if group is None:
            raise missing("SecurityGroup")
        if group["GroupStatus"] != "applied":
            raise Refused("Server.ResourceIncorrectState.SecurityGroup.Processing", "busy")
        rules: list[dict[str, Any]] = []
        for one in call.groups("IpPermissions"):
            rule: dict[str, Any] = {"InOut": one["InOut"], "IpProtocol": one["IpProtocol"]}
            rule |= {key: int(one[key]) for key in ("FromPort", "ToPort") if key in one}
            rule["IpRanges"] = [{"CidrIp": one["IpRanges.1.CidrIp"]}] if "IpRanges.1.CidrIp" in one else []
            rule["Groups"] = [{"GroupName": one["Groups.1.GroupName"]}] if "Groups.1.GroupName" in one else []
            rules.append(rule)
        group["GroupStatus"] = "processing"
        self.later(lambda: group.update(GroupStatus="applied"))
        return group, rules

    def do_authorize_security_group_ingress(self, call: Call) -> dict[str, Any]:
        group, rules = self._rules(call)
        group["IpPermissions"] += rules
        return {"Return": True}

    def do_revoke_security_group_ingress(self, call: Call) -> dict[str, Any]:
        group, rules = self._rules(call)
        group["IpPermissions"] = [one for one in group["IpPermissions"] if one not in rules]
        return {"Return": True}

    # ---- disks

    def volume(self, name: str, *, server: str = "", description: str = "", zone: str = "east-11") -> dict[str, Any]:
        made: dict[str, Any] = {"VolumeId": name, "Description": description, "Size": "100", "Status": "available"}
        made |= {"AvailabilityZone": zone, "DiskType": "Standard Flash Storage A", "server": server}
        self.volumes[name] = made
        return made

    def _volume(self, call: Call) -> dict[str, Any]:
        if call["VolumeId"] not in self.volumes:
            raise missing("Volume")
        return self.volumes[call["VolumeId"]]

    def do_describe_volumes(self, _: Call) -> dict[str, Any]:
        shown: list[dict[str, Any]] = []
        for one in self.volumes.values():
            server = self.instances.get(one["server"], {})
            place = {"InstanceId": one["server"], "InstanceUniqueId": server.get("InstanceUniqueId", "i-gone")}
            state = "attaching" if one["Status"] == "attaching" else "attached"
            attached = [place | {"Status": state}] if one["server"] else []
            shown.append({key: value for key, value in one.items() if key != "server"} | {"AttachmentSet": attached})
        return {"VolumeSet": shown}

    def do_create_volume(self, call: Call) -> dict[str, Any]:
        if call["VolumeId"] in self.volumes:
            raise taken("Volume")
        server = self._instance(call["InstanceId"])
        zone = server["Placement"]["AvailabilityZone"]
        made = self.volume(call["VolumeId"], server=call["InstanceId"], description=call["Description"], zone=zone)
        made |= {"Size": call["Size"], "Status": "attaching", "AccountingType": call["AccountingType"]}
        made["DiskType"] = {"2": "Standard Storage", "5": "Flash Storage"}.get(call["DiskType"], made["DiskType"])
        self.later(lambda: made.update(Status="in-use"))
        return {"VolumeId": call["VolumeId"]}

    def do_attach_volume(self, call: Call) -> dict[str, Any]:
        one = self._volume(call)
        if one["server"]:
            raise Refused("Server.Inoperable.Volume.AlreadyAttached", "it is attached")
        one |= {"server": self._instance(call["InstanceId"])["InstanceId"], "Status": "attaching"}
        self.later(lambda: one.update(Status="in-use"))
        return {}

    def do_detach_volume(self, call: Call) -> dict[str, Any]:
        one = self._volume(call)
        self.later(lambda: one.update(server="", Status="available"))
        return {}

    def do_modify_volume_attribute(self, call: Call) -> dict[str, Any]:
        self._volume(call)["Description"] = call["Value"]
        return {}

    def do_extend_volume_size(self, call: Call) -> dict[str, Any]:
        one = self._volume(call)
        one |= {"Size": str(int(one["Size"]) + 100), "Status": "attaching"}
        self.later(lambda: one.update(Status="in-use"))
        return {}

    def do_delete_volume(self, call: Call) -> dict[str, Any]:
        del self.volumes[self._volume(call)["VolumeId"]]
        return {}

    # ---- addresses

    def do_describe_addresses(self, _: Call) -> dict[str, Any]:
        return {"AddressesSet": list(self.addresses.values())}

    def do_allocate_address(self, call: Call) -> dict[str, Any]:
        address = f"203.0.113.{100 + len(self.addresses)}"
        self.addresses[address] = {"PublicIp": address, "AvailabilityZone": call["Placement.AvailabilityZone"]}
        return {"PublicIp": address}

    def do_nifty_modify_address_attribute(self, call: Call) -> dict[str, Any]:
        self.addresses[call["PublicIp"]]["Description"] = call["Value"]
        return {}

    def do_release_address(self, call: Call) -> dict[str, Any]:
        if self.addresses.pop(call["PublicIp"], None) is None:
            raise missing("IpAddress")
        return {}


def _snake(operation: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operation).lower()


class AddressNotes:
    """Implements ``AddressNote`` as a record does, which outlives processes."""

    def __init__(self) -> None:
        self.addresses: frozenset[str] | None = None

    def before(self) -> frozenset[str] | None:
        return self.addresses

    def write(self, addresses: Collection[str]) -> None:
        self.addresses = frozenset(addresses)

    def clear(self) -> None:
        self.addresses = None

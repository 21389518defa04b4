"""Servers, key pairs, private LANs and network cards of NIFCLOUD, over the SDK's own wire."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from moyai.cloud.capabilities import Capability, CapabilityAbsent
from moyai.cloud.model import Activity, Power, SourceAddress
from moyai.cloud.nifcloud.error_codes import LostReply
from moyai.cloud.nifcloud.marks import Mark, wire_name
from moyai.core.errors import Conflict, NotFound, Terminal, UsageError
from moyai.core.ids import CLUSTER_TAG, cluster_tag
from tests.fakes.nifcloud_wire import NifcloudWire

UID = "0123456789"
TAG = cluster_tag(UID)
NAME = "demo-workers-0"
CALLED = wire_name(Mark(UID, NAME))
SCRIPT = "#!/bin/sh\necho hello\n"
RSA = "ssh-rsa AAAAB3NzaC1yc2E= somebody"


@pytest.fixture
def wire() -> NifcloudWire:
    return NifcloudWire()


def lan(wire: NifcloudWire) -> str:
    networks = wire.cloud().networks
    made = networks.create_network(name="demo-network", tags=[TAG])
    networks.create_subnet(name="demo-subnet", network_id=made.id, cidr="10.0.0.0/24", tags=[TAG])
    return made.id


def create(wire: NifcloudWire, *, name: str = NAME, network: str = "net-COMMON_GLOBAL", **other: Any) -> Any:
    cloud = wire.cloud()
    port = cloud.networks.create_port(
        name=name, network_id=network, subnet_id="", security_group_ids=other.pop("groups", ()), tags=[TAG]
    )
    wanted: dict[str, Any] = {"image_id": "283", "flavor_id": "e-medium4", "user_data": SCRIPT, "metadata": {CLUSTER_TAG: UID}}
    return cloud.machines.create_server(name=name, port_ids=[port.id], tags=[TAG], **(wanted | other))


# ---- servers


def test_a_server_is_made_with_all_in_one_call_and_shows_moyais_name(wire: NifcloudWire) -> None:
    made = create(wire, network=lan(wire), groups=["demogroup"], zone="east-12")
    assert (made.name, made.tags, made.metadata, made.power) == (NAME, (TAG,), {CLUSTER_TAG: UID}, Power.STARTING)
    (sent,) = wire.sent("RunInstances")
    assert sent["InstanceId"] == CALLED
    assert sent["Description"] == f"moyai:{UID},{NAME}"
    assert (sent["SecurityGroup.1"], sent["Placement.AvailabilityZone"], sent["IpType"]) == ("demogroup", "east-12", "none")
    assert (sent["NetworkInterface.1.NetworkName"], sent["NetworkInterface.1.IpAddress"]) == (
        wire_name(Mark(UID, "demo-network")),
        "static",
    )
    assert base64.b64decode(sent["UserData"]).decode() == SCRIPT
    assert sent["AccountingType"] == "2"
    assert (sent["UserData.Encoding"], sent["DisableApiTermination"]) == ("base64", "false")
    wire.clock.sleep(10)
    (seen,) = wire.cloud().machines.servers(tag=TAG)
    assert (seen.power, seen.zone, seen.flavor_name) == (Power.RUNNING, "east-12", "e-medium4")
    assert wire.cloud().machines.settled_servers(tag=TAG) == {NAME}
    assert wire.cloud().machines.servers(tag=cluster_tag("abcdef0123")) == []


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_lost_reply_makes_no_second_server(wire: NifcloudWire, done: bool) -> None:
    wire.lose("RunInstances", done=done)
    made = create(wire)
    assert made.name == NAME
    assert len(wire.account.instances) == 1
    assert wire.count["RunInstances"] == (1 if done else 2)


def test_a_server_that_comes_into_sight_late_is_not_asked_for_again(wire: NifcloudWire) -> None:
    cloud = wire.cloud()
    wire.lose("RunInstances", done=False)

    def appear() -> None:
        wire.account.server(CALLED, description=f"moyai:{UID},{NAME}", state="pending")

    wire.account.seconds = 20.0
    wire.account.later(appear)
    made = cloud.machines.create_server(
        name=NAME, image_id="1", flavor_id="mini", port_ids=[], user_data=SCRIPT, metadata={}, tags=[TAG]
    )
    assert made.name == NAME
    assert wire.count["RunInstances"] == 1


def test_replies_that_stay_lost_end_in_one_line(wire: NifcloudWire) -> None:
    wire.lose("RunInstances", done=False, times=20)
    with pytest.raises(LostReply, match="no whole answer came"):
        create(wire)


def test_a_run_that_died_is_carried_on(wire: NifcloudWire) -> None:
    first = create(wire)
    again = create(wire)
    assert again.id == first.id
    assert wire.count["RunInstances"] == 1


def test_a_foreign_server_of_our_name_is_neither_taken_nor_deleted(wire: NifcloudWire) -> None:
    wire.account.server(CALLED, description="our web server")
    with pytest.raises(Conflict, match="somebody else's"):
        create(wire)
    assert wire.cloud().machines.servers(tag=TAG) == []
    with pytest.raises(Conflict, match="not moyai's"):
        wire.cloud().machines.delete_server(wire.account.instances[CALLED]["InstanceUniqueId"])
    assert wire.count.keys() & {"RunInstances", "StopInstances", "TerminateInstances"} == set()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"user_data": "#!/bin/sh\n" + "x" * 6200}, "too long"),
        ({"user_data": "#cloud-config\n"}, "no script"),
        ({"zone": "east-99"}, "no zone 'east-99'"),
        ({"name": "a-name-that-is-much-too-long-for-it"}, "too long for NIFCLOUD"),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_asked_for(wire: NifcloudWire, wrong: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        create(wire, **wrong)
    assert wire.count["RunInstances"] == 0


def test_metadata_that_cannot_be_kept_is_refused_as_an_absent_capability(wire: NifcloudWire) -> None:
    with pytest.raises(CapabilityAbsent, match=r"moyai\.role") as caught:
        create(wire, metadata={CLUSTER_TAG: UID, "moyai.role": "worker"})
    assert caught.value.capability is Capability.METADATA


def test_a_server_is_stopped_before_it_is_terminated(wire: NifcloudWire) -> None:
    made = create(wire)
    wire.clock.sleep(10)
    machines = wire.cloud().machines
    machines.delete_server(made.id)
    machines.delete_server(made.id)
    names = [call.operation for call in wire.calls if call.operation in ("StopInstances", "TerminateInstances")]
    assert names == ["StopInstances", "TerminateInstances"]
    assert wire.sent("StopInstances")[0]["Force"] == "true"
    assert wire.account.instances == {}


def test_a_guest_that_does_not_end_loses_its_power(wire: NifcloudWire) -> None:
    made = create(wire)
    wire.clock.sleep(10)
    wire.refuse("StopInstances", "Server.ProcessingFailure.Instance.Stop")
    wire.cloud().machines.stop_server(made.id)
    assert [one["Force"] for one in wire.sent("StopInstances")] == ["false", "true"]
    assert wire.cloud().machines.server(made.id).power is Power.OFF


def test_only_a_stopped_server_and_one_that_is_gone_are_off(wire: NifcloudWire) -> None:
    server = wire.account.server("a", description=f"moyai:{UID},{NAME}")
    seen: dict[str, Activity] = {}
    for state in ("running", "pending", "stopped", "warning", "suspending", "import_error", "terminated"):
        server["InstanceState"] = {"Name": state}
        seen[state] = wire.cloud().machines.server(server["InstanceUniqueId"]).evidence.activity
    assert [state for state, activity in seen.items() if activity is Activity.OFF] == ["stopped", "terminated"]
    assert [state for state, activity in seen.items() if activity is Activity.RUNNING] == ["running"]
    # a server that was renamed is not gone
    wire.account.instances = {"renamed": server | {"InstanceId": "renamed", "InstanceState": {"Name": "running"}}}
    assert wire.cloud().machines.server(server["InstanceUniqueId"]).name == NAME
    with pytest.raises(NotFound):
        wire.cloud().machines.server("i-99999999")


def test_a_node_names_zone_and_id_as_the_clouds_own_controllers_do(wire: NifcloudWire) -> None:
    machines = wire.cloud().machines
    assert machines.provider_id("i-1a2b3c4d", "east-11") == "nifcloud:///east-11/i-1a2b3c4d"
    for text in ("nifcloud:///east-11/i-1a2b3c4d", "nifcloud:////i-1a2b3c4d", "i-1a2b3c4d"):
        assert machines.server_id(text) == "i-1a2b3c4d"
    for text in ("", "openstack:///i-1a2b3c4d", "nifcloud:///east-11/web"):
        assert machines.server_id(text) is None


def test_start_reboot_and_their_states(wire: NifcloudWire) -> None:
    machines = wire.cloud().machines
    server = wire.account.server("a", state="stopped")
    machines.start_server(server["InstanceUniqueId"])
    with pytest.raises(Conflict):
        machines.reboot_server(server["InstanceUniqueId"])
    wire.clock.sleep(10)
    machines.resume_server(server["InstanceUniqueId"])
    machines.reboot_server(server["InstanceUniqueId"])
    assert machines.server(server["InstanceUniqueId"]).power is Power.STARTING
    assert machines.console_log(server["InstanceUniqueId"]) == ""


# ---- key pairs


def test_key_pairs_have_moyais_names(wire: NifcloudWire) -> None:
    machines, name = wire.cloud().machines, f"demo-{UID}"
    with pytest.raises(UsageError, match="ssh-ed25519"):
        machines.create_keypair(name, "ssh-ed25519 AAAA somebody")
    wire.lose("ImportKeyPair")
    machines.create_keypair(name, RSA)
    assert machines.keypairs() == [name]
    assert all(key.isalnum() and len(key) <= 32 for key in wire.account.keys)
    with pytest.raises(Conflict):
        machines.create_keypair(name, RSA)
    create(wire, key_name=name)
    assert wire.sent("RunInstances")[0]["KeyName"] in wire.account.keys
    machines.delete_keypair(name)
    machines.delete_keypair(name)
    assert machines.keypairs() == []


# ---- networks


def test_a_private_lan_is_made_with_its_range_and_keeps_its_id(wire: NifcloudWire) -> None:
    networks = wire.cloud().networks
    made = networks.create_network(name="demo-network", tags=[TAG])
    assert wire.account.lans == {}
    wire.lose("NiftyCreatePrivateLan")
    networks.create_subnet(name="demo-subnet", network_id=made.id, cidr="10.0.0.0/24", tags=[TAG])
    (seen,) = networks.networks(tag=TAG)
    assert (seen.id, seen.name, seen.tags) == (made.id, "demo-network", (TAG,))
    assert [one.cidr for one in networks.subnets(network_id=made.id)] == ["10.0.0.0/24"]
    assert len(wire.account.lans) == 1
    assert [one.id for one in networks.networks(external=True)] == ["net-COMMON_GLOBAL"]
    again = wire.cloud().networks
    assert again.create_network(name="demo-network", tags=[TAG]).id == made.id
    again.delete_subnet(made.id)
    again.delete_network(made.id)
    assert wire.account.lans == {}


def test_a_lan_of_another_is_not_deleted_and_one_in_use_is_a_conflict(wire: NifcloudWire) -> None:
    network = lan(wire)
    ((net, found),) = wire.account.lans.items()
    found["InstancesSet"] = [{"InstanceId": "web"}]
    networks = wire.cloud().networks
    with pytest.raises(Conflict, match="in use by web"):
        networks.delete_network(network)
    found |= {"InstancesSet": [], "Description": "ours"}
    with pytest.raises(Conflict, match="not moyai's"):
        networks.delete_network(net)
    assert networks.networks(tag=TAG) == []


def test_a_port_is_a_plan_until_its_server_has_it(wire: NifcloudWire) -> None:
    network, networks = lan(wire), wire.cloud().networks
    assert not networks.sources_allowed()
    with pytest.raises(Terminal):
        networks.create_port(name=NAME, network_id=network, subnet_id="", send_from=[SourceAddress("10.1.0.0/24")], tags=[TAG])
    planned = networks.create_port(name=NAME, network_id=network, subnet_id=network, fixed_ip="10.0.0.5", tags=[TAG])
    assert networks.ports(ids=[planned.id]) == []
    networks.delete_port(planned.id)
    server = create(wire, network=network)
    (card,) = networks.ports(ids=[planned.id])
    assert (card.device_id, card.name, card.network_id, card.fixed_ips) == (server.id, NAME, network, ("10.0.0.5",))
    assert [one.id for one in networks.ports(device_ids=[server.id])] == [card.id]
    with pytest.raises(Conflict, match="address of server"):
        networks.create_port(name="demo-workers-1", network_id=network, subnet_id="", fixed_ip="10.0.0.5", tags=[TAG])
    with pytest.raises(Terminal, match="not in"):
        networks.create_port(name="demo-workers-1", network_id=network, subnet_id="", fixed_ip="10.9.0.5", tags=[TAG])
    with pytest.raises(Conflict, match="goes with it"):
        networks.delete_port(card.id)
    assert networks.update_port(planned.id, security_group_ids=["other"]).security_group_ids == ("other",)
    with pytest.raises(Terminal, match="one firewall group"):
        networks.update_port(planned.id, security_group_ids=["a", "b"])

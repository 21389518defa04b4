"""Networks and machines beside a cluster: what a spec may say, what is planned, made, changed and removed."""
# ruff: noqa: E501 (messages are compared whole)

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path

import pytest

from moyai.bootstrap.beside_data import machine_data
from moyai.bootstrap.user_data import UserDataTooLarge
from moyai.cloud.memory import Killed
from moyai.cloud.model import Power
from moyai.core.errors import UsageError
from moyai.core.ids import MACHINE_KEY, TEMPLATE_KEY
from moyai.lifecycle import execute
from moyai.lifecycle.record import Record
from moyai.lifecycle.ssh import ssh_way
from moyai.lifecycle.status import read
from moyai.linux.process import run
from moyai.plan import text
from moyai.plan.bgp.bgp_conf import read_bgp_conf, write_bgp_conf
from moyai.plan.machines_beside import router_commands, wanted_machines
from moyai.plan.pod_network.bgp import bgp_conf_of
from moyai.spec.load import load, parse
from tests.fakes.cloud import named
from tests.unit.lifecycle_world import World

LAB = """
metadata: {name: lab}
spec:
  nodePools: [{network: workers, replicas: 2}]
  networks:
    - {name: workers, cidr: 10.9.0.0/24}
    - {name: clients, cidr: 10.10.0.0/24, gateway: rt-01}
  machines:
    - name: rt-01
      role: router
      bgp: {asn: 64512}
      networks: [{network: workers, address: 10.9.0.2}, {network: clients, address: 10.10.0.1}]
    - {name: client-01, role: client, networks: [{network: clients, address: 10.10.0.10}]}
    - {name: door, role: bastion, networks: [{address: 10.8.0.2}]}
  network:
    mode: vxlan
    bgp: {routers: [{name: rt-01, address: 10.9.0.2, asn: 64512, accept: [10.10.0.0/24]}]}
  services: {announce: {ranges: [10.11.0.0/27]}}
"""
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("{name: workers, cidr: 10.9.0.0/24}", "{name: nodes, cidr: 10.9.0.0/24}", r"networks\[0\]\.name: 'nodes', should be another name"),
        ("cidr: 10.9.0.0/24", "cidr: 10.8.0.0/20", r"networks\[0\]\.cidr: '10\.8\.0\.0/20', should be apart from nodeCIDR"),
        ("cidr: 10.9.0.0/24", "cidr: 10.9.0.0/25", r"nodePools\[0\]\.network: 'workers', should be a network with as many addresses"),
        ("gateway: rt-01", "gateway: client-01", r"networks\[1\]\.gateway: 'client-01', should be the name of a machine with the role router"),
        ("network: workers, replicas", "network: clients, replicas", r"nodePools\[0\]\.network: 'clients', should be a network that the cluster's router"),
        ("network: workers, replicas", "network: elsewhere, replicas", r"nodePools\[0\]\.network: 'elsewhere', should be one of nodes, workers, clients"),
        ("mode: vxlan", "mode: host-gw", r"nodePools\[0\]\.network: 'workers', should be left out in mode host-gw"),
        ("name: door", "name: workers-7", r"machines\[2\]\.name: 'workers-7', should be another name"),
        ("name: door", "name: rt-01", r"machines\[2\]\.name: 'rt-01', should be a name of its own"),
        ("address: 10.8.0.2}", "address: 10.8.0.20}", r"machines\[2\]\.networks\[0\]\.address: '10\.8\.0\.20', should be apart from 10\.8\.0\.10 to"),
        ("address: 10.8.0.2}", "address: 10.8.0.1}", r"should be apart from 10\.8\.0\.1, which the cloud's router has"),
        ("address: 10.10.0.10", "address: 10.9.0.3", r"machines\[1\]\.networks\[0\]\.address: '10\.9\.0\.3', should be an address within 10\.10\.0\.0/24"),
        ("role: client,", "role: client, bgp: {asn: 1},", r"machines\[1\]\.bgp: a mapping, should be left out where the role is not router"),
        ("role: client,", "role: client, packages: ['x; rm'],", r"machines\[1\]\.packages\[0\]: 'x; rm', should be the name of a Debian package"),
        ("role: client,", "role: client, files: [{path: etc/x, content: a}],", r"files\[0\]\.path: 'etc/x', should be the path of a file"),
        ("[10.11.0.0/27]", "[10.9.0.32/27]", r"ranges\[0\]: '10\.9\.0\.32/27', should be within"),
        ("[10.11.0.0/27]", "[]", r"network\.bgp\.routers: a list, should be left out where mode is not bgp and services"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(wrong: str, right: str, message: str) -> None:
    assert LAB.count(wrong) >= 1
    with pytest.raises(UsageError, match=message):
        parse(LAB.replace(wrong, right, 1))


def test_a_lab_is_made_with_its_cluster_and_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    lines = [line[4:].partition("  (after")[0] for line in text.lines(world.preview(LAB))]
    assert {
        "create network lab-workers",
        "create subnet lab-clients 10.10.0.0/24",
        "put the subnet workers on the router",
        "create port lab-rt-01-clients 10.10.0.1, open for packets of others",
        "create server lab-rt-01 (router, m1.small)",
        "create floating ip for door",
        "create port lab-workers-0 10.9.0.11, pods 10.244.1.0/24",
        "wait until 3 machines run",
    } <= set(lines)
    assert "put the subnet clients on the router" not in lines
    world.up(LAB)
    store = world.store
    router = named(store.servers, "lab-rt-01")
    assert router.metadata[MACHINE_KEY] == "rt-01"
    clients = named(store.subnets, "lab-clients")
    assert (clients.gateway, named(store.subnets, "lab-workers").gateway) == ("", "10.9.0.1")
    places = {port.name: port for port in store.ports}
    assert places["lab-client-01-clients"].fixed_ips == ("10.10.0.10",)
    assert places["lab-rt-01-workers"].security_group_ids == ()
    door = next(one for one in store.floating_ips if one.description.endswith("machine lab-door"))
    assert door.port_id == places["lab-door-nodes"].id
    assert not world.up(LAB).changed
    world.down("lab")
    assert world.all_names() == []


def test_a_machine_whose_entry_changes_is_made_again_and_one_that_is_gone_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(LAB)
    before = named(world.store.servers, "lab-client-01")
    router = named(world.store.servers, "lab-rt-01").id
    changed = LAB.replace("role: client,", "role: client, packages: [tcpdump],")
    lines = "\n".join(text.lines(world.preview(changed)))
    assert "delete server lab-client-01" in lines
    assert "its entry in the spec has changed" in lines
    world.up(changed)
    after = named(world.store.servers, "lab-client-01")
    assert after.id != before.id
    assert after.metadata[TEMPLATE_KEY] != before.metadata[TEMPLATE_KEY]
    assert named(world.store.servers, "lab-rt-01").id == router
    assert not world.up(changed).changed
    without = "".join(line + "\n" for line in LAB.splitlines() if "client-01" not in line and "door" not in line)
    world.up(without)
    assert not [one for one in world.names("lab") if "client-01" in one or "door" in one]
    assert not world.up(without).changed
    assert len(list(world.store.servers)) == 4


def test_a_network_that_nobody_is_in_goes_and_others_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    more = LAB.replace("  machines:", "    - {name: spare, cidr: 10.12.0.0/24}\n  machines:")
    world.up(more)
    assert "networks lab-spare" in world.names("lab")
    world.up(LAB)
    assert not [one for one in world.names("lab") if "spare" in one]
    assert not world.up(LAB).changed
    with pytest.raises(UsageError, match=r"spec\.networks\[clients\]\.cidr: '10\.10\.1\.0/24', should stay '10\.10\.0\.0/24'"):
        world.preview(LAB.replace("10.10.0.", "10.10.1."))
    with pytest.raises(UsageError, match=r"nodePools\[workers\]\.network: 'nodes', should stay 'workers'"):
        world.preview(LAB.replace("network: workers, replicas", "replicas"))


def test_a_machine_that_is_off_is_started_and_one_that_failed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(LAB)
    old = named(world.store.servers, "lab-client-01").id
    world.power("lab-rt-01", Power.OFF)
    world.fail("lab-client-01", "no host")
    world.up(LAB)
    assert named(world.store.servers, "lab-rt-01").power is Power.RUNNING
    assert named(world.store.servers, "lab-client-01").id != old


def test_a_cluster_without_a_lab_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record has neither of the fields."""
    world = World(tmp_path, monkeypatch)
    world.up("")
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    spec = record.spec
    inner = {name: value for name, value in spec["spec"].items() if name not in ("networks", "machines")}
    inner["nodePools"] = [{name: value for name, value in pool.items() if name != "network"} for pool in inner["nodePools"]]
    record.set_spec({**spec, "spec": inner})
    assert text.lines(world.preview("")) == ["nothing to do"]


def test_auto_is_vxlan_where_nodes_are_in_several_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    notes = world.preview(LAB.replace("mode: vxlan", "mode: auto")).notes
    assert "spec.network.mode: auto is vxlan here: the nodes are in several networks: pods' packets are encapsulated" in notes


def test_a_cloud_that_checks_sources_has_no_router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.store.sources_allowed = False
    with pytest.raises(UsageError, match=r"spec\.machines\[0\]\.role: 'router', should be another one"):
        world.preview(LAB.replace("  services: {announce: {ranges: [10.11.0.0/27]}}", "").partition("    bgp: {routers")[0])


def test_only_nodes_near_a_router_have_a_session_with_it() -> None:
    conf = bgp_conf_of(parse(LAB).spec)
    assert conf is not None
    assert (conf.asn, conf.pods, conf.peers[0].within) == (64522, "", "10.9.0.0/24")
    assert read_bgp_conf(write_bgp_conf(conf)) == conf
    alone = bgp_conf_of(parse("spec: {network: {mode: bgp, bgp: {routers: [{name: a, address: 10.8.0.2, asn: 1}]}}}").spec)
    assert alone is not None
    assert "within" not in write_bgp_conf(alone)


def test_machines_are_reached_through_the_control_plane_and_the_router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(LAB)
    record = Record.open(world.paths, "lab")
    assert record is not None
    router, client = ssh_way(record, "rt-01"), ssh_way(record, "lab-client-01", user="root")
    assert (router.address, client.address, client.user) == ("10.9.0.2", "10.10.0.10", "root")
    assert "debian@10.9.0.2" not in " ".join(router.options)
    assert "debian@10.9.0.2" in client.options[-1]
    assert f"debian@{record.api_address}" in client.options[-1]
    worker = ssh_way(record, "workers-0")
    assert worker.address == "10.9.0.11"
    found = read(record, world.cloud)
    assert [(one.name, one.role, one.addresses) for one in found.machines] == [
        ("lab-client-01", "client", ("10.10.0.10",)),
        ("lab-door", "bastion", ("10.8.0.2",)),
        ("lab-rt-01", "router", ("10.9.0.2", "10.10.0.1")),
    ]
    assert not [one for one in found.nodes if "rt-01" in one.name]


@pytest.mark.exhaustive
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_up_killed_at_every_change_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    world = World(tmp_path / "count", monkeypatch)
    world.up(LAB)
    whole, changes = world.names("lab"), world.mortal.changes
    for number in range(1, changes + 1):
        world = World(tmp_path / f"{number}", monkeypatch)
        world.mortal.kill_at(number, after=after)
        with pytest.raises(Killed):
            world.up(LAB)
        world.mortal.revive()
        if number % 3 == 0:
            world.down("lab")
            assert world.all_names() == [], f"killed at change {number}"
            continue
        world.up(LAB)
        assert world.names("lab") == whole, f"killed at change {number}"
        assert not world.up(LAB).changed


def test_what_a_machine_is_made_with_says_what_its_role_demands() -> None:
    cluster = parse(LAB.replace("role: client,", "role: client, packages: [tcpdump], files: [{path: /etc/motd, content: hi}],"))
    found = {machine.entry.name: unpacked(machine_data(cluster, machine, limit=65535)) for machine in wanted_machines(cluster)}
    assert found["client-01"]["etc/motd"] == "hi"
    assert "default via 10.10.0.1" in found["client-01"]["usr/local/lib/moyai/machine"]
    assert "install tcpdump" in found["client-01"]["usr/local/lib/moyai/packages"]
    router = found["rt-01"]
    assert "ip saddr { 10.10.0.0/24 } ip daddr != { 10.8.0.0/24, 10.9.0.0/24" in router["usr/local/lib/moyai/machine"]
    commands = json.loads(router["etc/moyai/router.json"])["bgpd"]
    assert "bgp listen range 10.9.0.0/24 peer-group nodes" in commands
    assert "ip prefix-list from-nodes seq 10 permit 10.11.0.0/27 le 32" in commands
    assert "etc/systemd/system/moyai-router.service" in router
    assert found["door"] == {}
    for text_ in (
        text_ for files in found.values() for name, text_ in files.items() if name.startswith("usr/local/lib/moyai/")
    ):
        run(["sh", "-n"], stdin=text_, timeout=20)
    with pytest.raises(UserDataTooLarge):
        machine_data(cluster, wanted_machines(cluster)[0], limit=1000)


def test_a_router_and_its_nodes_agree_whether_a_session_has_several_hops() -> None:
    spec = parse(LAB).spec
    near = router_commands(spec, spec.machines[0])["bgpd"]
    assert "multihop" not in " ".join(near)
    assert [one for one in near if "listen range" in one] == ["bgp listen range 10.9.0.0/24 peer-group nodes"]
    spec = parse(LAB.replace("asn: 64512, accept", "asn: 64512, multihop: true, accept")).spec
    far = router_commands(spec, spec.machines[0])["bgpd"]
    assert "neighbor nodes ebgp-multihop" in far
    assert len([one for one in far if "listen range" in one]) == 2
    conf = bgp_conf_of(spec)
    assert conf is not None
    assert (conf.peers[0].within, conf.peers[0].multihop) == ("", True)


def unpacked(script: str) -> dict[str, str]:
    packed = base64.b64decode(script.partition("<<'END' | tar -xz -C /\n")[2].partition("END\n")[0])
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return {one.name: (archive.extractfile(one) or io.BytesIO()).read().decode() for one in archive.getmembers()}


def test_the_example_is_a_lab() -> None:
    spec = load(REPOSITORY / "examples/lab-bgp").cluster.spec
    assert [machine.role for machine in spec.machines] == ["router", "client"]
    assert spec.node_pools[0].replicas == 3

"""NIFCLOUD as a whole cloud: its names, its login, what it lacks, and what the doctor and a plan say of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from moyai.ccm.nodes import desired_addresses, desired_patch
from moyai.ccm.settings import CcmConfig, ClusterConfig, read_ccm_config, write_ccm_config
from moyai.cloud.adapter import UnknownCloud
from moyai.cloud.capabilities import Capability, CapabilityAbsent, Cloud
from moyai.cloud.credentials import DIRECT, Reach, Use
from moyai.cloud.factory import ADAPTERS
from moyai.cloud.nifcloud.access_keys import AccessKey
from moyai.cloud.nifcloud.nifcloud_adapter import read_name
from moyai.cloud.nifcloud.nifcloud_credentials import NifcloudCredentials
from moyai.core.errors import CredentialsRefused, Terminal, UsageError
from moyai.core.paths import Paths
from moyai.diagnose.doctor.command_doctor import doctor
from moyai.diagnose.doctor.finding import State
from moyai.kube.objects import UNINITIALIZED, Node, Taint
from tests.contract.suite.absences import PARTS, silent_calls
from tests.fakes.clock import FakeClock
from tests.fakes.nifcloud_wire import NifcloudWire


@pytest.fixture
def wire() -> NifcloudWire:
    return NifcloudWire()


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIFCLOUD_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("NIFCLOUD_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.delenv("NIFCLOUD_DEFAULT_REGION", raising=False)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nifcloud", {}),
        ("nifcloud:jp-east-1", {"region": "jp-east-1"}),
        ("nifcloud:region=jp-west-1,zone=west-11", {"region": "jp-west-1", "zone": "west-11"}),
        (
            "nifcloud:region=r,endpointURL=https://[::1]:8443,ca=/x",
            {"region": "r", "endpointURL": "https://[::1]:8443", "ca": "/x"},
        ),
    ],
)
def test_a_name_says_region_and_settings(name: str, options: dict[str, str]) -> None:
    assert read_name(name) == options


def test_other_names_are_other_clouds_and_faulty_ones_are_one_line() -> None:
    for name in (None, "", "moyai", "nifcloud2", "envvars"):
        with pytest.raises(UnknownCloud):
            read_name(name)
    with pytest.raises(UsageError, match="'regoin=x' is no setting"):
        read_name("nifcloud:regoin=x")


def test_a_cloud_of_nifcloud_is_connected_to_by_its_name(key: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ADAPTERS.connect("nifcloud:jp-east-1").kind.name == "nifcloud"
    with pytest.raises(UsageError, match="no region: write nifcloud:REGION"):
        ADAPTERS.connect("nifcloud")
    monkeypatch.setenv("NIFCLOUD_DEFAULT_REGION", "jp-east-4")
    assert ADAPTERS.connect("nifcloud").account.region() == "jp-east-4"
    with pytest.raises(UsageError, match="no region 'nowhere-1'"):
        ADAPTERS.connect("nifcloud:nowhere-1")
    with pytest.raises(UsageError, match="no accounting 'weekly': there are: monthly, hourly"):
        ADAPTERS.connect("nifcloud:region=jp-east-1,accounting=weekly")
    monkeypatch.delenv("NIFCLOUD_SECRET_ACCESS_KEY")
    with pytest.raises(UsageError, match="NIFCLOUD_SECRET_ACCESS_KEY is not"):
        ADAPTERS.connect("nifcloud:jp-east-1")


@pytest.mark.parametrize("reach", [DIRECT, Reach(authorities="-----BEGIN CERTIFICATE-----")])
def test_the_parts_inside_a_cluster_log_in_with_what_was_written_for_them(reach: Reach) -> None:
    adapter = ADAPTERS.named("nifcloud")
    login = adapter.issued_login(
        cloud="nifcloud:jp-east-1",
        region="jp-east-1",
        url="https://jp-east-1.computing.api.nifcloud.com",
        credential_id="a",
        secret="hidden",
        reach=reach,
    )
    read = read_ccm_config(write_ccm_config(CcmConfig(login, cluster=ClusterConfig("uid"))), adapter).cloud
    assert read.lines() == login.lines()
    assert ("ca-file" in "\n".join(read.lines())) == bool(login.files)
    assert "hidden" in read.secrets
    assert "hidden" not in repr(login)
    assert adapter.log_in(read).account.region() == "jp-east-1"
    with pytest.raises(UsageError, match="no region: give it"):
        read_ccm_config("", adapter)


def test_what_it_lacks_is_a_value_and_every_call_of_it_says_so(wire: NifcloudWire) -> None:
    cloud: Cloud = wire.cloud()
    offered = {Capability.DISKS, Capability.CREDENTIALS, Capability.PUBLIC_CARDS, Capability.ENTRANCES}
    assert cloud.capabilities() == offered
    for capability in set(PARTS) - cloud.capabilities():
        assert silent_calls(cloud, capability) == []
    # none can be made
    with pytest.raises(CapabilityAbsent):
        cloud.credentials.create_credential(name="n", use=Use.VOLUMES, description="d")
    assert wire.calls == []


def test_the_doctor_says_what_it_can_and_what_that_costs(wire: NifcloudWire, tmp_path: Path) -> None:
    paths = Paths(tmp_path / "cache", tmp_path / "state")
    report = doctor(wire.cloud(), image="node", paths=paths, clock=FakeClock(), spec=None)
    found = {one.subject: one for one in report.findings}
    assert found["login"].state is State.OK
    assert found["volumes"].state is State.OK
    assert found["tags"].advice == "none: the owner of an object stands in its description or its name, which creation writes"
    for instead in ("metadata of servers", "routers", "floating IPs", "load balancers"):
        assert found[instead].state is State.OK
        assert "instead" in found[instead].text
    assert "computing" in found
    assert not report.well


def test_a_key_that_is_refused_is_one_line(wire: NifcloudWire, tmp_path: Path) -> None:
    wire.refuse("DescribeRegions", "Client.AuthFailurePermission.AccessKey")
    paths = Paths(tmp_path / "cache", tmp_path / "state")
    with pytest.raises(CredentialsRefused, match="NIFCLOUD_ACCESS_KEY_ID"):
        doctor(wire.cloud(), image="node", paths=paths, clock=FakeClock(), spec=None)


def test_the_key_of_the_user_is_handed_over_and_no_other_is_made(wire: NifcloudWire) -> None:
    credentials = NifcloudCredentials(AccessKey("id", "secret"), cloud="nifcloud:jp-east-1")
    own = credentials.own_login()
    assert (own.may_issue, own.given) == (False, "id")
    assert "sub-account" in own.notes[0]
    assert (credentials.own_credential().id, credentials.own_credential().secret) == ("id", "secret")
    assert "secret" not in repr(credentials.own_credential())
    assert credentials.credentials(name_prefix="") == []
    assert wire.cloud().credentials.own_login().refusal


def test_account_images_and_survey(wire: NifcloudWire) -> None:
    cloud = wire.cloud()
    assert [(one.id, one.ready) for one in cloud.images.images(name="Ubuntu Server 24.04 LTS")] == [("283", True)]
    assert cloud.images.images(name="none") == []
    with pytest.raises(Terminal, match="takes no image"):
        cloud.images.upload(name="n", file=Path("f"), distribution="debian", properties={})
    assert (cloud.account.image_mirror(), cloud.account.reach()) == (None, DIRECT)
    assert cloud.account.login_url() == "https://jp-east-1.computing.api.nifcloud.com"
    (service,) = cloud.survey.services()
    assert (service.versions, service.fault) == ("3.0", "")
    wire.refuse("DescribeAvailabilityZones", "Client.Something.Else")
    (service,) = cloud.survey.services()
    assert "Client.Something.Else" in service.fault
    assert cloud.survey.features() == frozenset()
    assert (cloud.survey.free_addresses("n"), cloud.survey.clock_ahead(), cloud.survey.certificates()) == (None, None, [])
    assert cloud.machines.zones() == ["east-11", "east-12", "east-13"]
    assert ADAPTERS.named("nifcloud").guest().instance() is None


def test_a_node_gets_what_the_clouds_own_controller_manager_gives_it(wire: NifcloudWire) -> None:
    made = wire.account.server("node121", zone="east-12")
    cloud = wire.cloud()
    (server,) = cloud.machines.servers()
    node = Node("node121", "u", taints=(Taint(UNINITIALIZED, "NoSchedule"),))
    assert server.name == node.name, "the Node of a server that moyai did not make has the server's name"
    provider_id = cloud.machines.provider_id(server.id, server.zone)
    patch = desired_patch(node, server, region=cloud.account.region(), provider_id=provider_id)
    assert patch["spec"] == {"providerID": f"nifcloud:///east-12/{made['InstanceUniqueId']}", "taints": []}
    assert patch["metadata"]["labels"] == {
        "topology.kubernetes.io/zone": "east-12",
        "topology.kubernetes.io/region": "jp-east-1",
        "node.kubernetes.io/instance-type": "e-medium4",
    }
    addresses = desired_addresses(node, server)
    assert {("InternalIP", "10.0.0.5"), ("ExternalIP", "203.0.113.5")} <= set(addresses)


def test_a_guest_finds_a_disk_by_its_place_on_the_bus() -> None:
    guest = ADAPTERS.named("nifcloud").guest()
    assert guest.disk_links("v", "SCSI (0:3)")[0] == "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:3:0"
    assert all(link.endswith(":3:0") for link in guest.disk_links("v", "SCSI (0:3)"))
    assert guest.disk_links("v") == guest.disk_links("v", "/dev/vdb") == ()

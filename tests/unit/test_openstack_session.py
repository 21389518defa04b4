"""Requests: retries, time limits, tokens, pages, clouds.yaml."""

from __future__ import annotations

import socket
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.capabilities import ALTERNATIVES, Capability, CapabilityAbsent
from moyai.cloud.config_file import read_sections
from moyai.cloud.openstack import ApplicationCredential, connect
from moyai.cloud.openstack.cloud_conf import GlobalConfig, log_in, read_login
from moyai.cloud.openstack.login import UserPassword, open_session
from moyai.cloud.openstack.openstack_cloud import OpenStackCloud
from moyai.core.errors import NotFound, Retriable, Terminal, UsageError
from tests.contract.suite.absences import PARTS, silent_calls
from tests.fakes.clock import FakeClock
from tests.unit.openstack_server import EXTENSIONS, Answer, OpenStackServer, openstack_server


@pytest.fixture
def played() -> Generator[OpenStackServer]:
    with openstack_server() as server:
        yield server


FLAVORS = "/compute/v2.1/flavors/detail"
SMALL = {"id": "1", "name": "m1.small", "vcpus": 1, "ram": 2048, "disk": 10}


def test_many_threads_share_one_token(played: OpenStackServer) -> None:
    played.on("GET", FLAVORS, {"flavors": [SMALL]})
    cloud = played.cloud()
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(cloud.machines.flavors) for _ in range(64)]
        answers = [one.result() for one in asked]
    assert all(one == answers[0] for one in answers)
    assert len(played.made("POST", "/v3/auth/tokens")) == 1
    assert len(played.made("GET", FLAVORS)) == 64


def test_nova_is_asked_in_the_version_that_has_tags(played: OpenStackServer) -> None:
    played.on("GET", FLAVORS, {"flavors": []})
    played.cloud().machines.flavors()
    assert played.made("GET", FLAVORS)[0].headers["OpenStack-API-Version"] == "compute 2.60"


def test_a_read_is_repeated_after_a_dropped_connection_and_after_503(played: OpenStackServer) -> None:
    played.on("GET", FLAVORS, Answer(drop=True), Answer(503, headers={"Retry-After": "7"}), {"flavors": [SMALL]})
    assert [flavor.name for flavor in played.cloud().machines.flavors()] == ["m1.small"]
    assert played.clock.monotonic() >= 7


def test_a_creation_is_not_repeated_when_the_cloud_may_have_received_it(played: OpenStackServer) -> None:
    path = "/compute/v2.1/os-keypairs"
    played.on("POST", path, Answer(drop=True))
    with pytest.raises(Retriable):
        played.cloud().machines.create_keypair("k", "ssh-ed25519 AAAA")
    assert len(played.made("POST", path)) == 1


def test_a_creation_is_repeated_when_the_cloud_says_it_did_nothing(played: OpenStackServer) -> None:
    path = "/compute/v2.1/os-keypairs"
    played.on("POST", path, Answer(503), Answer(429), {"keypair": {}})
    played.cloud().machines.create_keypair("k", "ssh-ed25519 AAAA")
    assert len(played.made("POST", path)) == 3


def test_a_server_error_that_stays_is_retriable_with_its_request_id(played: OpenStackServer) -> None:
    body = {"computeFault": {"code": 500, "message": "Unexpected API Error."}}
    played.on("GET", FLAVORS, Answer(500, body, {"x-compute-request-id": "req-7"}))
    with pytest.raises(Retriable) as caught:
        played.cloud().machines.flavors()
    assert caught.value.request_id == "req-7"
    assert caught.value.operation == "list flavors"


def test_a_token_that_ran_out_is_renewed(played: OpenStackServer) -> None:
    played.on("GET", FLAVORS, {"flavors": []}, Answer(401, {"error": {"message": "gone"}}), {"flavors": [SMALL]})
    cloud = played.cloud()
    cloud.machines.flavors()
    assert len(cloud.machines.flavors()) == 1
    assert len(played.made("POST", "/v3/auth/tokens")) == 2


def test_refused_credentials_are_one_clear_line(played: OpenStackServer) -> None:
    body = {"error": {"code": 401, "message": "The request you have made requires authentication.", "title": "Unauthorized"}}
    played.on("POST", "/v3/auth/tokens", Answer(401, body))
    with pytest.raises(Terminal, match=r"requires authentication.*does not accept these credentials"):
        played.cloud().machines.flavors()


def test_a_cloud_that_is_not_there_is_retriable_and_says_why() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    credential = ApplicationCredential(f"http://127.0.0.1:{port}/v3", "c", "s")
    cloud = OpenStackCloud(open_session(credential=credential, clock=FakeClock()))
    with pytest.raises(Retriable, match=r"cannot be reached .*refused"):
        cloud.machines.flavors()


def test_a_first_call_waits_for_a_cloud_that_is_just_starting(played: OpenStackServer) -> None:
    played.on("GET", FLAVORS, {"flavors": [SMALL]})
    played.on("POST", "/v3/auth/tokens", Answer(503), Answer(503), played.token())
    assert len(played.cloud().machines.flavors()) == 1


def test_a_service_that_the_catalog_lacks_is_terminal(played: OpenStackServer) -> None:
    with pytest.raises(Terminal, match="placement"):
        played.cloud().session.service("placement").get("/", operation="look")


def test_a_service_url_comes_from_the_catalog_and_is_none_where_there_is_none(played: OpenStackServer) -> None:
    account = played.cloud().account
    assert account.login_url() == f"{played.url}/v3"
    assert account.image_mirror() is None
    assert account.region() == "R1"
    assert account.project_id() == "p1"


def test_pages_are_followed_by_their_query_only(played: OpenStackServer) -> None:
    played.on(
        "GET",
        "/image/v2/images",
        {"images": [{"id": "1", "name": "a", "status": "active"}], "next": "/elsewhere/v2/images?marker=1&limit=1000"},
        {"images": [{"id": "2", "name": "b", "status": "queued", "os_distro": "debian"}]},
    )
    images = played.cloud().images.images()
    assert [(image.id, image.status, dict(image.properties)) for image in images] == [
        ("1", "ACTIVE", {}),
        ("2", "QUEUED", {"os_distro": "debian"}),
    ]
    assert played.made("GET", "/image/v2/images")[1].query["marker"] == ["1"]


def test_deleting_what_is_gone_is_success_and_showing_it_is_not(played: OpenStackServer) -> None:
    cloud = played.cloud()
    cloud.machines.delete_server("x")
    cloud.networks.delete_port("x")
    cloud.disks.delete_volume("x")
    cloud.images.delete_image("x")
    cloud.credentials.delete_credential("x")
    with pytest.raises(NotFound):
        cloud.machines.server("x")


def clouds_yaml(folder: Path, text: str, *, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "clouds.yaml"
    file.write_text(text)
    for name in ("OS_CLOUD", "OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD", "OS_PROJECT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(file))


TWO = """
clouds:
  moyai: {auth: {auth_url: "http://127.0.0.1:1/v3", username: u, password: p, project_name: x,
          user_domain_name: Default, project_domain_name: Default}}
  other: {auth: {auth_url: "http://127.0.0.1:1/v3", username: u, password: p, project_name: x}}
"""


def test_an_unknown_cloud_is_named_with_those_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clouds_yaml(tmp_path, TWO, monkeypatch=monkeypatch)
    with pytest.raises(UsageError, match="no cloud 'prod': there are: moyai, other"):
        connect("prod")
    with pytest.raises(UsageError, match=r"no cloud named: .*moyai, other"):
        connect()
    assert connect("moyai").name == "moyai"


def test_an_entry_that_is_not_complete_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clouds_yaml(tmp_path, "clouds: {bad: {auth_type: nosuch, auth: {}}}", monkeypatch=monkeypatch)
    with pytest.raises(UsageError, match="bad"):
        connect("bad")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clouds: [:", r"clouds\.yaml:1:10: not valid YAML: .*, should be a clouds\.yaml"),
        ("clouds: !!bool zz", "should be a mapping of names to mappings"),
        ("[a]", "not one mapping, should be a clouds.yaml"),
        ("clouds: {moyai: 5}", "should be a mapping of names to mappings"),
        ("clouds: {moyai: {auth: 5}}", "not complete"),
        ("clouds: {moyai: {auth: {auth_url: 5}}}", "not complete"),
        ("clouds: {moyai: {profile: 5}}", "not complete"),
    ],
)
def test_a_broken_clouds_yaml_is_a_usage_error(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clouds_yaml(tmp_path, text, monkeypatch=monkeypatch)
    with pytest.raises(UsageError, match=message):
        connect("moyai")


def test_a_secret_is_not_shown() -> None:
    assert "s3cret" not in repr(ApplicationCredential("http://x", "id", "s3cret"))


def test_a_capability_whose_service_the_catalog_lacks_is_absent(played: OpenStackServer) -> None:
    assert played.cloud().capabilities() == frozenset(Capability) - ALTERNATIVES
    played.without = frozenset({"block-storage", "load-balancer"})
    absent = {Capability.DISKS, Capability.LOAD_BALANCERS, Capability.ROOT_VOLUMES}
    assert frozenset(Capability) - ALTERNATIVES - played.cloud().capabilities() == absent


def test_a_catalog_with_former_types_that_lacks_the_interface_has_no_such_service(played: OpenStackServer) -> None:
    played.former = {"volume": "block-storage", "volumev3": "block-storage"}
    assert played.cloud().capabilities() == frozenset(Capability) - ALTERNATIVES
    cloud = played.cloud(interface="internal")
    assert frozenset(Capability) - ALTERNATIVES - cloud.capabilities() >= {Capability.DISKS, Capability.LOAD_BALANCERS}
    assert silent_calls(cloud, Capability.DISKS) == []
    with pytest.raises(Terminal, match="has no compute service"):
        cloud.machines.flavors()


@pytest.mark.parametrize("capability", list(PARTS))
def test_every_call_of_an_absent_capability_says_which_one_is_absent(played: OpenStackServer, capability: Capability) -> None:
    played.without = frozenset({"block-storage", "load-balancer"})
    played.has(without=EXTENSIONS)
    assert silent_calls(played.cloud(), capability) == []


def test_a_service_in_an_unknown_version_is_no_absence(played: OpenStackServer) -> None:
    played.on("POST", "/v3/auth/tokens", played.token("/volume/v2"))
    cloud = played.cloud()
    assert Capability.DISKS in cloud.capabilities()
    with pytest.raises(Terminal) as caught:
        cloud.disks.volumes()
    assert not isinstance(caught.value, CapabilityAbsent)


def test_a_service_whose_address_is_configured_is_there_without_the_catalog(
    played: OpenStackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.without = frozenset({"block-storage", "load-balancer"})
    text = f"""
clouds:
  moyai:
    auth: {{auth_url: "{played.url}/v3", username: u, password: p, project_name: x, user_domain_name: Default,
            project_domain_name: Default}}
    region_name: R1
    block_storage_endpoint_override: {played.url}/volume/v3
"""
    clouds_yaml(tmp_path, text, monkeypatch=monkeypatch)
    cloud = connect("moyai")
    assert frozenset(Capability) - ALTERNATIVES - cloud.capabilities() == {Capability.LOAD_BALANCERS}
    played.on("GET", "/volume/v3/volumes/detail", {"volumes": []})
    assert cloud.disks.volumes() == []


def identity(played: OpenStackServer, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What Keystone is sent for a cloud.conf: (user, project)."""
    config = read_login(read_sections(f"[Global]\nauth-url={played.url}/v3\n{text}")["Global"])
    log_in(config).project_id()
    auth = played.made("POST", "/v3/auth/tokens")[-1].json["auth"]
    assert auth["identity"]["methods"] == ["password"]
    return auth["identity"]["password"]["user"], auth["scope"]["project"]


def test_a_cloud_conf_with_a_user_logs_in_by_password(played: OpenStackServer) -> None:
    user, project = identity(played, "username=u\npassword=p\ntenant-name=t\ndomain-name=d")
    assert user == {"name": "u", "password": "p", "domain": {"name": "d"}}
    assert project == {"name": "t", "domain": {"name": "d"}}


def test_domains_of_user_and_project_go_before_the_common_one(played: OpenStackServer) -> None:
    text = "username=u\npassword=p\nproject-name=t\nuser-domain-id=ud\nproject-domain-name=pd\ndomain-name=d"
    user, project = identity(played, text)
    assert (user["domain"], project["domain"]) == ({"id": "ud"}, {"name": "pd"})
    user, project = identity(played, "username=u\npassword=p\ntenant=t\nuser-domain-name=ud")
    assert user["domain"] == project["domain"] == {"name": "ud"}
    user, project = identity(played, "username=u\npassword=p\ntenant=t")
    assert user["domain"] == project["domain"] == {"id": "default"}


def test_ids_need_no_domain(played: OpenStackServer) -> None:
    user, project = identity(played, "user-id=u\npassword=p\ntenant-id=t\ndomain-name=d")
    assert (user, project) == ({"id": "u", "password": "p"}, {"id": "t"})


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (GlobalConfig(), "has no login"),
        (GlobalConfig(application_credential_id="i"), "has no login"),
        (GlobalConfig(username="u", tenant_name="t"), "has no login"),
        (GlobalConfig(username="u", password="p"), "no project"),
    ],
)
def test_a_cloud_conf_without_a_whole_login_is_refused(config: GlobalConfig, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        log_in(config)


def test_an_application_credential_goes_before_a_user(played: OpenStackServer) -> None:
    both = GlobalConfig(f"{played.url}/v3", application_credential_id="i", application_credential_secret="s", username="u")
    log_in(replace(both, password="p", tenant_id="t")).project_id()
    sent = played.made("POST", "/v3/auth/tokens")[-1].json["auth"]
    assert sent["identity"]["methods"] == ["application_credential"]


def test_a_password_is_not_shown() -> None:
    assert "s3cret" not in repr(UserPassword("http://x", "s3cret"))

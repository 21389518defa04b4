"""What a login of the user's can do for the parts inside a cluster, and by which way they then reach the cloud.

The rules are Keystone's: tests/cloud asks a real one. Here its answers are played back.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import certifi
import pytest

from moyai.cloud.credentials import DIRECT, OwnLogin
from moyai.cloud.openstack import ADAPTER, OpenStackCloud, connect
from moyai.cloud.openstack.authorities import authorities
from moyai.core.errors import CredentialsRefused, Terminal, UsageError
from tests.unit.openstack_server import NETWORK_EXTENSIONS, Answer, OpenStackServer, openstack_server

CREDENTIALS = "/v3/users/u1/application_credentials"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Generator[OpenStackServer]:
    for name in (*PROXIES, *map(str.upper, PROXIES), "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "OS_CLOUD", "OS_AUTH_URL"):
        monkeypatch.delenv(name, raising=False)
    with openstack_server() as server:
        server.has("extraroute-atomic")
        server.on("GET", CREDENTIALS, {"application_credentials": []})
        yield server


def token(played: OpenStackServer, **more: Any) -> Answer:
    """The answer to a login; None takes a key away."""
    answer = played.token()
    changed = answer.body["token"] | more
    kept = {key: value for key, value in changed.items() if value is not None}
    return replace(answer, body={"token": kept})


def credential(name: str = "mine", *, restricted: bool = True, **more: Any) -> dict[str, Any]:
    return {"application_credential": {"id": "c", "name": name, "restricted": restricted, **more}}


def logged_in(played: OpenStackServer, **more: Any) -> OpenStackCloud:
    played.on("POST", "/v3/auth/tokens", token(played, **more))
    return played.cloud()


def by_clouds_yaml(played: OpenStackServer, folder: Path, *, monkeypatch: pytest.MonkeyPatch, **more: Any) -> OpenStackCloud:
    auth = {"auth_url": f"{played.url}/v3", "username": "u", "password": "p", "project_id": "p1"}
    file = folder / "clouds.yaml"
    # JSON is YAML
    file.write_text(json.dumps({"clouds": {"mine": {"auth": auth, "region_name": "R1", **more}}}))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(file))
    return connect("mine")


# ---- what a login can do


def test_a_credential_that_may_not_make_others_is_given_to_the_parts_with_a_note(played: OpenStackServer) -> None:
    cloud = logged_in(played, **credential())
    row = {"id": "c", "name": "mine", "expires_at": "2027-01-02T03:04:05.000000"}
    played.on("GET", CREDENTIALS, {"application_credentials": [row], "links": {}})
    note = (
        "application credential mine may not make others, so the cloud controller manager and the CSI driver log in with it: "
        "the cluster needs it as long as it lives, and ends on 2027-01-02 03:04 UTC"
    )
    assert cloud.credentials.own_login() == OwnLogin(may_issue=False, given="mine", notes=(note,))
    own = cloud.credentials.own_credential()
    assert (own.id, own.secret) == ("c", "s")
    assert played.made("POST", CREDENTIALS) == [], "nothing is asked of Keystone that it refuses"


def test_a_given_credential_that_lacks_a_role_says_so(played: OpenStackServer) -> None:
    played.roles = ("member",)
    notes = logged_in(played, **credential()).credentials.own_login().notes
    assert "has no role load-balancer_member" in notes[1]


def test_access_rules_that_leave_out_what_the_parts_send_are_refused_by_name(played: OpenStackServer) -> None:
    rules = [{"service": kind, "method": verb, "path": "/**"} for kind in ("compute", "network") for verb in ("GET", "PUT")]
    own = logged_in(played, **credential(access_rules=rules)).credentials.own_login()
    assert (own.may_issue, own.given) == (False, "")
    assert own.refusal.startswith("the access rules of the application credential mine lack POST ")
    assert own.refusal.endswith(" more")


def test_access_rules_that_do_not_let_a_credential_look_at_itself_are_enough_for_the_parts(played: OpenStackServer) -> None:
    verbs, kinds = ("GET", "PUT", "POST", "DELETE"), ("compute", "network", "block-storage", "load-balancer")
    everything = [{"service": kind, "method": verb, "path": "/**"} for kind in kinds for verb in verbs]
    cloud = logged_in(played, **credential(access_rules=everything))
    played.on("GET", CREDENTIALS, Answer(401, {"error": {"message": "The request you have made requires authentication."}}))
    own = cloud.credentials.own_login()
    assert own.given == "mine"
    assert own.notes[0].endswith("the cluster needs it as long as it lives"), "its end cannot be seen"


def test_access_rules_under_which_the_requests_cannot_even_be_known_are_refused(played: OpenStackServer) -> None:
    cloud = logged_in(played, **credential(access_rules=[{"service": "compute", "method": "GET", "path": "/**"}]))
    refusal = Answer(401, {"error": {"message": "The request you have made requires authentication."}})
    for path in (CREDENTIALS, NETWORK_EXTENSIONS):
        played.on("GET", path, refusal)
    own = cloud.credentials.own_login()
    assert (own.may_issue, own.given) == (False, "")
    assert own.refusal.startswith("the access rules of the application credential mine ")


def test_access_rules_are_understood_as_keystone_understands_them(played: OpenStackServer) -> None:
    verbs, kinds = ("GET", "PUT", "POST", "DELETE"), ("compute", "network", "block-storage", "load-balancer")
    everything = [{"service": kind, "method": verb, "path": "/**"} for kind in kinds for verb in verbs]
    assert logged_in(played, **credential(access_rules=everything)).credentials.own_login().given == "mine"
    one = [{**rule, "path": "/*"} for rule in everything]
    assert "lack" in logged_in(played, **credential(access_rules=one)).credentials.own_login().refusal


def test_a_token_of_such_a_credential_is_refused_since_it_does_not_last(
    played: OpenStackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played.on("POST", "/v3/auth/tokens", token(played, methods=["token", "application_credential"], **credential()))
    cloud = by_clouds_yaml(played, tmp_path, monkeypatch=monkeypatch)
    assert "a token ends within hours" in cloud.credentials.own_login().refusal
    with pytest.raises(Terminal, match="is no application credential"):
        cloud.credentials.own_credential()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, OwnLogin()),
        (404, OwnLogin()),
        (403, OwnLogin(may_issue=False, refusal="Keystone's policy lets this user make no application credentials")),
    ],
)
def test_keystone_is_asked_whether_credentials_may_be_made(status: int, expected: OwnLogin, played: OpenStackServer) -> None:
    played.on("POST", CREDENTIALS, Answer(status, {"error": {"message": "no"}}))
    assert logged_in(played, **credential(restricted=False)).credentials.own_login() == expected
    assert logged_in(played).credentials.own_login() == expected


def test_the_question_makes_nothing_that_stays(played: OpenStackServer) -> None:
    played.on("POST", CREDENTIALS, Answer(201, {"application_credential": {"id": "odd"}}))
    played.on("DELETE", f"{CREDENTIALS}/odd", Answer(204))
    assert logged_in(played).credentials.own_login().may_issue
    assert len(played.made("DELETE", f"{CREDENTIALS}/odd")) == 1


def test_credentials_that_are_refused_are_told_as_such(played: OpenStackServer) -> None:
    played.on("POST", CREDENTIALS, Answer(401, {"error": {"message": "no"}}))
    with pytest.raises(CredentialsRefused, match="access rules"):
        logged_in(played).credentials.own_login()


def test_a_trust_without_impersonation_is_refused(played: OpenStackServer) -> None:
    trust = {"id": "t", "trustor_user": {"id": "other"}, "trustee_user": {"id": "u1"}, "impersonation": False}
    assert "trust without impersonation" in logged_in(played, **{"OS-TRUST:trust": trust}).credentials.own_login().refusal


def test_logins_that_end_soon_or_hang_on_groups_are_noted(played: OpenStackServer) -> None:
    played.on("POST", CREDENTIALS, Answer(400, {}))
    soon = played.clock.now().replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    user: dict[str, Any] = {"id": "u1", "name": "u", "domain": {"id": "d", "name": "D"}, "OS-FEDERATION": {"groups": []}}
    notes = logged_in(played, methods=["token"], expires_at=soon, user=user).credentials.own_login().notes
    assert [note.split(" ")[3] for note in notes] == ["a", "federated:"]


@pytest.mark.parametrize(
    ("scope", "whose"),
    [
        ({"system": {"all": True}}, "the system"),
        ({"domain": {"id": "d", "name": "D"}}, "a domain"),
        ({}, "no project"),
    ],
)
def test_a_login_without_a_project_is_one_line_at_the_first_call(
    scope: dict[str, Any], whose: str, played: OpenStackServer
) -> None:
    cloud = logged_in(played, project=None, **scope)
    for call in (cloud.capabilities, cloud.account.project_id, cloud.credentials.own_login, cloud.account.login_url):
        with pytest.raises(Terminal, match=f"belongs to {whose}, and moyai works in a project"):
            call()


@pytest.mark.parametrize("kind", ["none", "admin_token", "http_basic", "v3kerberos"])
def test_a_login_past_keystone_or_without_its_library_is_a_usage_error(
    kind: str, played: OpenStackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = {"endpoint": played.url, "token": "t", "username": "u", "password": "p"}
    wanted = {"none": ("endpoint",), "admin_token": ("endpoint", "token"), "http_basic": ("endpoint", "username", "password")}
    given = {key: auth[key] for key in wanted.get(kind, ())} or {"auth_url": played.url}
    with pytest.raises(UsageError, match=r"leads past Keystone|not complete"):
        by_clouds_yaml(played, tmp_path, monkeypatch=monkeypatch, auth_type=kind, auth=given)


def test_an_application_credential_finds_keystones_api_where_its_login_address_has_no_version(
    played: OpenStackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = {"auth_url": played.url, "application_credential_id": "c", "application_credential_secret": "s"}
    cloud = by_clouds_yaml(played, tmp_path, monkeypatch=monkeypatch, auth_type="v3applicationcredential", auth=auth)
    assert cloud.credentials.credentials(name_prefix="") == []
    assert cloud.account.login_url() == f"{played.url}/v3"


# ---- by which way


def test_the_plain_way_is_the_default_one(played: OpenStackServer) -> None:
    assert played.cloud().account.reach() == DIRECT


def test_all_that_clouds_yaml_says_of_the_way_reaches_the_parts(
    played: OpenStackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.pem").write_text(f"The cloud's own\n{PEM}and no key: -----BEGIN PRIVATE KEY-----")
    (tmp_path / "cert.pem").write_text(PEM)
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    cloud = by_clouds_yaml(
        played,
        tmp_path,
        monkeypatch=monkeypatch,
        cacert=str(tmp_path / "ca.pem"),
        cert=str(tmp_path / "cert.pem"),
        key=str(tmp_path / "key.pem"),
        interface="internalURL",
        network_endpoint_override=f"{played.url}/network/v2.0",
        compute_interface="public",
    )
    way = cloud.account.reach()
    assert way.authorities == PEM
    assert way.certificate == PEM + "-----BEGIN PRIVATE KEY-----\n"
    assert way.interface == "internal"
    assert way.endpoints == {"compute": f"{played.url}/compute/v2.1", "network": f"{played.url}/network/v2.0"}
    assert "your client certificate" in way.notes[0]
    login = ADAPTER.issued_login(cloud="mine", region="R1", url="https://k/v3", credential_id="i", secret="s", reach=way)
    text = "\n".join(login.lines())
    for line in (
        'ca-file = "/etc/moyai/ca.pem"',
        'cert-file = "/etc/moyai/client.pem"',
        'key-file = "/etc/moyai/client.pem"',
        'os-endpoint-type = "internal"',
        f"endpoint-override = compute={played.url}/compute/v2.1,network={played.url}/network/v2.0",
    ):
        assert line in text
    assert login.files == {"ca.pem": way.authorities, "client.pem": way.certificate}
    assert way.certificate in login.secrets
    assert "PRIVATE" not in repr(way) + repr(login)


def test_a_cloud_whose_certificates_are_not_checked_is_so_for_the_parts_too(
    played: OpenStackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = by_clouds_yaml(played, tmp_path, monkeypatch=monkeypatch, verify=False).account.reach()
    login = ADAPTER.issued_login(cloud="mine", region="R1", url="https://k/v3", credential_id="i", secret="s", reach=way)
    assert "tls-insecure = true" in login.lines()


def test_a_bundle_of_the_environment_counts_where_the_cloud_speaks_https_and_clouds_yaml_names_none(
    played: OpenStackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "env.pem").write_text(PEM)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "env.pem"))
    assert authorities(True, ["http://k/v3", "https://n"], cloud="c") == PEM
    assert authorities(True, ["http://k/v3"], cloud="c") == ""
    assert played.cloud().account.reach().authorities == "", "the played cloud has no certificate"


def test_a_bundle_too_large_for_user_data_is_refused_where_the_clouds_certificates_cannot_be_seen(tmp_path: Path) -> None:
    (tmp_path / "system.pem").write_text(Path(certifi.where()).read_text() + PEM)
    with pytest.raises(UsageError, match=r"`cacert`: .*system\.pem holds \d+ certificates, more than .* user data can hold"):
        authorities(str(tmp_path / "system.pem"), ["https://127.0.0.1:1/v3"], cloud="c")


@pytest.mark.parametrize(("text", "says"), [(None, "cannot be read"), ("nothing", "holds no certificate")])
def test_authorities_that_are_none_are_a_usage_error(
    text: str | None, says: str, played: OpenStackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    cloud = by_clouds_yaml(played, tmp_path, monkeypatch=monkeypatch, cacert=str(file))
    with pytest.raises(UsageError, match=says):
        cloud.account.reach()


def test_a_proxy_that_leads_to_the_cloud_is_the_parts_too(played: OpenStackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = played.cloud()
    cloud.capabilities()
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@proxy.example.org:3128")
    monkeypatch.setenv("NO_PROXY", "example.com")
    way = cloud.account.reach()
    assert dict(way.proxies) == {"HTTP_PROXY": "http://me:secret@proxy.example.org:3128", "NO_PROXY": "example.com"}
    assert "secret" not in repr(way)
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    assert cloud.account.reach() == DIRECT, "the cloud is reached without it"


def test_a_proxy_on_this_host_is_noted_since_no_part_reaches_it(
    played: OpenStackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = played.cloud()
    cloud.capabilities()
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@localhost:3128")
    way = cloud.account.reach()
    assert (dict(way.proxies), len(way.notes)) == ({}, 1)
    assert "without your proxy localhost:3128" in way.notes[0]

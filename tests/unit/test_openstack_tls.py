"""A part inside a cluster at a cloud whose certificate a private authority has signed: real TLS, by the part's own files."""

from __future__ import annotations

import ssl
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import certifi
import pytest

from moyai.cloud.config_file import read_sections
from moyai.cloud.credentials import DIRECT, Reach
from moyai.cloud.openstack import ADAPTER, cloud_conf
from moyai.cloud.openstack.authorities import authorities
from moyai.cloud.openstack.openstack_cloud import OpenStackCloud
from moyai.core.errors import MoyaiError, Terminal, UsageError
from tests.tls import signed
from tests.unit.openstack_server import OpenStackServer, openstack_server

AUTHORITY = signed("authority")
CLIENT = signed("client", AUTHORITY)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a part has its files."""
    monkeypatch.setattr(cloud_conf, "LOGIN_FOLDER", str(tmp_path / "part"))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def played(folder: Path) -> Generator[OpenStackServer]:
    """A cloud that asks for a client's certificate."""
    (folder / "server.pem").write_text(signed("cloud", AUTHORITY).whole)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    context.load_verify_locations(cadata=AUTHORITY.text)
    context.verify_mode = ssl.CERT_REQUIRED
    with openstack_server(context) as server:
        yield server


def part(folder: Path, played: OpenStackServer, *, way: Reach) -> OpenStackCloud:
    """The cloud as a part sees it, by the text and the files that its Secret holds."""
    url = f"{played.url}/v3"
    login = ADAPTER.issued_login(cloud="c", region="R1", url=url, credential_id="i", secret="s", reach=way)
    place = folder / "part"
    place.mkdir()
    for name, text in login.files.items():
        (place / name).write_text(text)
    return ADAPTER.log_in(ADAPTER.read_login(read_sections("\n".join(login.lines()))["Global"]))


def test_a_part_reaches_a_cloud_with_a_private_authority_and_client_certificates(folder: Path, played: OpenStackServer) -> None:
    way = replace(DIRECT, authorities=AUTHORITY.text, certificate=CLIENT.whole)
    assert part(folder, played, way=way).account.project_id() == "p1"


def test_without_the_authority_the_cloud_is_not_believed(folder: Path, played: OpenStackServer) -> None:
    with pytest.raises(Terminal, match="a certificate that is not trusted"):
        part(folder, played, way=replace(DIRECT, certificate=CLIENT.whole)).account.project_id()


def test_without_the_clients_certificate_the_cloud_does_not_answer(folder: Path, played: OpenStackServer) -> None:
    with pytest.raises(MoyaiError):
        part(folder, played, way=replace(DIRECT, authorities=AUTHORITY.text)).account.project_id()


def test_a_part_that_does_not_check_certificates_needs_no_authority(folder: Path, played: OpenStackServer) -> None:
    assert part(folder, played, way=Reach(insecure=True, certificate=CLIENT.whole)).account.project_id() == "p1"


def test_an_address_of_ones_own_goes_before_the_catalogs(folder: Path, played: OpenStackServer) -> None:
    played.on("GET", "/other/flavors/detail", {"flavors": []})
    way = Reach(authorities=AUTHORITY.text, certificate=CLIENT.whole, endpoints={"compute": f"{played.url}/other"})
    assert part(folder, played, way=way).machines.flavors() == []
    assert len(played.made("GET", "/other/flavors/detail")) == 1


def test_of_a_whole_systems_bundle_the_parts_get_the_authority_that_the_cloud_leads_to(
    folder: Path, played: OpenStackServer
) -> None:
    bundle = folder / "system.pem"
    bundle.write_text(Path(certifi.where()).read_text() + AUTHORITY.text)
    assert authorities(str(bundle), [f"{played.url}/v3", f"{played.url}/network"], cloud="c") == AUTHORITY.text
    bundle.write_text(Path(certifi.where()).read_text())
    with pytest.raises(UsageError, match="more than a machine's user data can hold"):
        authorities(str(bundle), [f"{played.url}/v3"], cloud="c")

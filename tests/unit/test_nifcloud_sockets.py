"""NIFCLOUD's SDK over real sockets on loopback: TLS with an authority of one's own, addresses, and connections that fail."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moyai.cloud.nifcloud.access_keys import AccessKey
from moyai.cloud.nifcloud.error_codes import LostReply, NeverSent
from moyai.cloud.nifcloud.sdk import ApiPlace, Sdk
from moyai.core.errors import Terminal, UsageError

KEY = AccessKey("a", "s")
ANSWER = (
    b'<DescribeRegionsResponse xmlns="https://computing.api.nifcloud.com/api/"><requestId>r</requestId>'
    b"<regionInfo><item><regionName>east-1</regionName></item></regionInfo></DescribeRegionsResponse>"
)


class Front:
    """``answer``: what every request gets, None: nothing until the test ends."""

    def __init__(self) -> None:
        self.paths: list[tuple[str, str]] = []
        self.answer: bytes | None = ANSWER
        self.status = 200
        self.ended = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


def certificate(folder: Path) -> Path:
    """A file with a key and a certificate for 127.0.0.1 that signs itself."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "front")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    text = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()) + made.public_bytes(pem)
    (folder / "front.pem").write_bytes(text)
    return folder / "front.pem"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def front(ca: Path) -> Generator[Front]:
    made = Front()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            made.paths.append((self.path, query["Action"][0]))
            if made.answer is None:
                made.ended.wait(30)
                return
            self.send_response(made.status)
            self.end_headers()
            self.wfile.write(made.answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that does not trust the certificate ends the connection."""

    server = Quiet(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    made.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.ended.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("path", ["", "/", "/api/", "/api"])
def test_an_address_of_ones_own_is_reached_by_its_own_authority(front: Front, ca: Path, path: str) -> None:
    sdk = Sdk(ApiPlace("jp-east-1", front.url + path, str(ca)), KEY)
    assert sdk.call("DescribeRegions", {})["RegionInfo"][0]["RegionName"] == "east-1"
    assert front.paths == [("/api/", "DescribeRegions")]


def test_an_authority_of_one_cloud_is_trusted_for_no_other(front: Front, ca: Path) -> None:
    Sdk(ApiPlace("jp-east-1", front.url, str(ca)), KEY).call("DescribeRegions", {})
    with pytest.raises(Terminal, match=r"TLS fails.*name its CA"):
        Sdk(ApiPlace("jp-east-1", front.url), KEY).call("DescribeRegions", {})
    assert len(front.paths) == 1


def test_a_file_that_is_no_authority_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("nothing")
    for name in ("x", "absent"):
        with pytest.raises(UsageError, match="no file of certificates"):
            Sdk(ApiPlace("jp-east-1", "https://127.0.0.1:1", str(tmp_path / name)), KEY).call("DescribeRegions", {})


def test_a_configuration_that_the_sdk_cannot_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = Sdk(ApiPlace("jp-east-1", "https://127.0.0.1:1"), KEY)
    monkeypatch.setenv("NIFCLOUD_PROFILE", "absent")
    with pytest.raises(UsageError, match=r"cannot be set up.*absent"):
        sdk.call("DescribeRegions", {})
    monkeypatch.delenv("NIFCLOUD_PROFILE")
    (tmp_path / "config").write_text("no section")
    monkeypatch.setenv("NIFCLOUD_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(UsageError, match="cannot be set up"):
        sdk.call("DescribeRegions", {})


@pytest.mark.parametrize("url", ["foo", "ftp://x y"])
def test_an_address_that_is_none_is_one_line(url: str) -> None:
    with pytest.raises(UsageError, match=f"cannot be set up.*{url}"):
        Sdk(ApiPlace("jp-east-1", url), KEY).call("DescribeRegions", {})


def test_a_slow_answer_is_lost_and_the_call_was_sent_once(front: Front, ca: Path) -> None:
    front.answer = None
    sdk = Sdk(ApiPlace("jp-east-1", front.url, str(ca)), KEY, read_seconds=0.3)
    with pytest.raises(LostReply, match="no whole answer"):
        sdk.call("AllocateAddress", {})
    assert front.paths == [("/api/", "AllocateAddress")]


@pytest.mark.parametrize("body", [b"", b"<html>Bad Gateway</html>", b"<Half><an>"])
def test_an_answer_without_a_code_is_lost(front: Front, ca: Path, body: bytes) -> None:
    front.answer, front.status = body, 502
    with pytest.raises(LostReply):
        Sdk(ApiPlace("jp-east-1", front.url, str(ca)), KEY).call("AllocateAddress", {})
    assert len(front.paths) == 1


def test_where_nobody_listens_nothing_was_sent(ca: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"https://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(NeverSent, match="cannot be reached"):
            Sdk(ApiPlace("jp-east-1", address, str(ca)), KEY).call("AllocateAddress", {})


def test_a_call_that_the_model_does_not_have_is_refused_before_it_is_sent(front: Front, ca: Path) -> None:
    with pytest.raises(Terminal, match="model refuses the call"):
        Sdk(ApiPlace("jp-east-1", front.url, str(ca)), KEY).call("DeleteVolume", {"Volume": "x"})
    assert front.paths == []

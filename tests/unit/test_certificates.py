"""No certificate ends unseen: `plan` renews what is this machine's to renew, and `status` shows the ends of all."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moyai.bootstrap import pki
from moyai.core.errors import Retriable, Terminal
from moyai.kube.quick import KubeApi
from moyai.lifecycle import certificates
from moyai.lifecycle.certificates import Certificate, CertificateStatus
from moyai.lifecycle.record import Record
from moyai.lifecycle.up import preview
from moyai.plan import text
from moyai.plan.certificates import Life
from moyai.plan.observed import Recorded
from moyai.spec.load import parse
from tests.fakes.clock import FakeClock
from tests.unit.lifecycle_world import World

DAY = 86400
YEAR = timedelta(days=365)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
RENEW = "write the administrator's kubeconfig: its certificate ends on 2027-01-01"
NOTE = "note: copies of the old kubeconfig end soon: `moyai kubeconfig --write` puts the renewed one into your own"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def planned(world: World) -> list[str]:
    return text.lines(preview(parse(""), world.cloud, paths=world.paths, clock=world.clock))


def folder(world: World) -> Path:
    return world.paths.clusters / "quickstart"


@pytest.mark.parametrize(("days", "due"), [(1, False), (243, False), (244, True), (364, True), (370, True)])
def test_the_kubeconfig_is_renewed_when_less_than_a_third_of_its_life_is_left(world: World, days: int, due: bool) -> None:
    world.up()
    world.clock.sleep(days * DAY)
    assert planned(world) == ([f"1  {RENEW}", NOTE] if due else ["nothing to do"])


def test_a_renewed_kubeconfig_is_another_certificate_of_the_same_cluster(world: World) -> None:
    world.up()
    before = (folder(world) / "kubeconfig").read_text()
    world.clock.sleep(370 * DAY)
    result = world.up()
    assert result.changed
    assert result.notes == (NOTE.removeprefix("note: "),)
    after = (folder(world) / "kubeconfig").read_text()
    assert after != before
    life = certificates.kubeconfig_life(folder(world))
    assert life is not None
    assert not life.due(world.clock.now() + timedelta(days=200))
    assert planned(world) == ["nothing to do"]
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    assert record.api_address in after


def test_a_new_kubeconfig_comes_before_all_that_needs_the_api(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API that refuses the ended certificate is asked again with the new one."""
    world.up()
    world.clock.sleep(370 * DAY)

    def refused(*_: object, **__: object) -> None:
        raise Retriable("Kubernetes answered 401: Unauthorized")

    with monkeypatch.context() as ended:
        ended.setattr(world.kube(), "list", refused)
        lines = planned(world)
    assert lines[0].strip() == f"1  {RENEW}"
    assert "2  wait until the Kubernetes API answers  (after 1)" in [line.strip() for line in lines]


def test_life_at_its_bounds() -> None:
    life = Life(BEGIN, BEGIN + timedelta(days=300))
    assert not life.due(BEGIN + timedelta(days=200))
    assert life.due(BEGIN + timedelta(days=200, seconds=1))
    assert not life.overdue(BEGIN + timedelta(days=225))
    assert life.overdue(BEGIN + timedelta(days=225, seconds=1))
    assert life.due(BEGIN + timedelta(days=400))


def test_what_begins_with_its_authority_is_not_due_for_that() -> None:
    life = Life(BEGIN, BEGIN + 9 * YEAR)
    assert not life.due(BEGIN + 8 * YEAR + timedelta(days=100))
    assert life.due(BEGIN + 8 * YEAR + timedelta(days=250))


# ---- status


def known(world: World) -> dict[str, CertificateStatus]:
    found = certificates.known(folder(world), None, timeout=1)
    return {one.name: one.status(world.clock.now()) for one in found}


def test_status_knows_what_is_on_record(world: World) -> None:
    world.up()
    found = known(world)
    assert list(found) == ["kubeconfig", "ca.crt", "front-proxy-ca.crt", "etcd/ca.crt"]
    assert (found["kubeconfig"].ends, found["kubeconfig"].days_left) == ("2027-01-01T00:00:00+00:00", 365)
    assert found["ca.crt"].days_left == 3650
    assert {one.source for one in found.values()} == {"record"}


def test_a_damaged_kubeconfig_is_left_out(world: World) -> None:
    world.up()
    for damage in ("", "users: []", "users: [{user: {client-certificate-data: eA==}}]", "users: 5", ": ["):
        (folder(world) / "kubeconfig").write_text(damage)
        assert "kubeconfig" not in known(world)


PLANES = [f"demo-control-plane-{number}" for number in range(3)]


def problem(days_left: float, *, renewed_by: str, source: str = "handshake", holder: str = "") -> str:
    life = Life(BEGIN, BEGIN + YEAR)
    hosts = frozenset({"kubernetes", holder})
    certificate = Certificate("x", life, cast("certificates.Source", source), cast("certificates.Renewal", renewed_by), hosts)
    return certificate.problem(life.ends - timedelta(days=days_left), control_planes=PLANES)


def test_an_end_is_a_problem_with_its_way_out() -> None:
    machine = "the control plane's machine"
    assert problem(122, renewed_by="moyai up") == ""
    assert problem(121, renewed_by="moyai up") == "certificate x ends on 2027-01-01: `moyai up` renews it"
    assert problem(92, renewed_by=machine) == "", "the machine has time to renew it"
    overdue = problem(91, renewed_by=machine)
    assert overdue.startswith("certificate x ends on 2027-01-01 and was not renewed by its machine: ")
    assert "`moyai ssh demo-control-plane-0`" in overdue
    assert "kubeadm certs renew all" in overdue
    assert "`moyai ssh demo-control-plane-2`" in problem(91, renewed_by=machine, holder=PLANES[2]), "the one that answered"
    assert problem(91, renewed_by=machine, source="derived") == "", "said once"
    assert problem(-1, renewed_by=machine).startswith("certificate x ended on 2027-01-01 ")
    assert "`moyai certificates rotate-ca` replaces it" in problem(364, renewed_by="moyai certificates rotate-ca")
    assert problem(366, renewed_by="moyai certificates rotate-ca") == ""


# ---- the API server's own, from a handshake


@contextmanager
def api_server(tmp_path: Path, *, ends: datetime) -> Generator[int]:
    """A TLS server that asks for a client certificate as the API server does; it never answers a request."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    # an address that it is not reached by, and the name that kubeadm puts into every such certificate
    dns = [x509.DNSName("kubernetes"), x509.DNSName(PLANES[1])]
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("203.0.113.9")), *dns])
    builder = builder.add_extension(names, critical=False)
    certificate = builder.not_valid_before(ends - YEAR).not_valid_after(ends).sign(key, hashes.SHA256())
    plain = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    (tmp_path / "pem").write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(serialization.Encoding.PEM, *plain)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    stream, _ = server.accept()
                except OSError:
                    return
                try:
                    context.wrap_socket(stream, server_side=True).close()
                except OSError:
                    stream.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def kube_api(tmp_path: Path, port: int) -> KubeApi:
    made = pki.ensure(tmp_path / "pki", FakeClock())
    return KubeApi(pki.admin_kubeconfig(made, name="demo", server=f"https://127.0.0.1:{port}", clock=FakeClock()))


def test_the_serving_certificate_is_read_without_a_login_also_after_its_end(tmp_path: Path) -> None:
    ends = datetime(2020, 1, 2, tzinfo=UTC)
    with api_server(tmp_path, ends=ends) as port:
        found = certificates.known(tmp_path / "none", kube_api(tmp_path, port), timeout=5)
    assert [(one.name, one.source, one.life) for one in found] == [
        ("apiserver.crt", "handshake", Life(ends - YEAR, ends)),
        ("others of the control plane", "derived", Life(ends - YEAR, ends)),
    ]
    assert "`moyai ssh demo-control-plane-1`" in found[0].problem(ends, control_planes=PLANES)


def test_an_api_that_shows_nothing_leaves_its_certificates_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    assert certificates.known(tmp_path / "none", kube_api(tmp_path, port), timeout=1) == ()


def test_an_ended_serving_certificate_is_called_so(tmp_path: Path) -> None:
    with api_server(tmp_path, ends=datetime(2020, 1, 2, tzinfo=UTC)) as port:
        api = kube_api(tmp_path, port)
        # the authority that signed it is believed, so that its end alone is wrong
        api._context.load_verify_locations(tmp_path / "pem")  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(Terminal, match="has ended"):
            api._call("GET", "/readyz")  # pyright: ignore[reportPrivateUsage]


def test_an_api_that_has_got_another_address_is_believed_by_its_name(tmp_path: Path) -> None:
    """The floating IP of the API was deleted: its certificate has the address of the old one."""
    with api_server(tmp_path, ends=datetime.now(UTC) + YEAR / 2) as port:
        api = kube_api(tmp_path, port)
        api._context.load_verify_locations(tmp_path / "pem")  # pyright: ignore[reportPrivateUsage]
        # it is taken for the cluster's own: what is missing is an answer
        with pytest.raises(Retriable, match="does not answer"):
            api._call("GET", "/readyz")  # pyright: ignore[reportPrivateUsage]


def test_nothing_is_renewed_where_nothing_was_written() -> None:
    assert Recorded("a", "b").kubeconfig_due is None
    assert Recorded("a", "b", now=BEGIN).kubeconfig_due is None

"""A kubeconfig for one person, whose certificate the cluster signs."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from moyai.core.errors import Terminal, UsageError
from moyai.core.yamlread import read_one
from moyai.kube.resources import CERTIFICATE_REQUESTS
from moyai.lifecycle import personal
from moyai.lifecycle.personal import parse_life, personal_kubeconfig
from moyai.lifecycle.record import Record
from tests.unit.lifecycle_world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, monkeypatch)
    made.up()
    monkeypatch.setattr(personal, "require_api", made.open_api)
    return made


def _record(world: World) -> Record:
    found = Record.open(world.paths, "quickstart")
    assert found is not None
    return found


def _signs(world: World, seen: list[Any]) -> None:
    """As the controller manager does it, once somebody has approved."""
    store = world.kube().store

    def call(name: str, after: bool) -> None:
        if name == f"replace {CERTIFICATE_REQUESTS.plural}" and after:
            (request,) = store.all(CERTIFICATE_REQUESTS)
            seen.append(request)
            assert request["status"]["conditions"][0]["type"] == "Approved"
            status = {**request["status"], "certificate": base64.b64encode(b"CERTIFICATE").decode()}
            store.put(CERTIFICATE_REQUESTS, {**request, "status": status})

    store.on_call = call


def test_a_person_gets_a_certificate_that_ends_soon(world: World) -> None:
    seen: list[Any] = []
    _signs(world, seen)
    text = personal_kubeconfig(_record(world), "bert", groups=("ops", "web"), life=timedelta(hours=8), clock=world.clock)
    config = read_one(text)
    assert config["current-context"] == "bert@quickstart"
    assert config["clusters"][0]["cluster"]["server"] == f"https://{_record(world).api_address}:6443"
    user = config["users"][0]["user"]
    assert base64.b64decode(user["client-certificate-data"]) == b"CERTIFICATE"
    assert b"PRIVATE KEY" in base64.b64decode(user["client-key-data"])
    (request,) = seen
    assert request["spec"]["expirationSeconds"] == 8 * 3600
    assert request["spec"]["signerName"] == "kubernetes.io/kube-apiserver-client"
    asked = x509.load_pem_x509_csr(base64.b64decode(request["spec"]["request"]))
    assert asked.is_signature_valid
    assert [one.value for one in asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["bert"]
    assert [one.value for one in asked.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["ops", "web"]
    assert not world.kube().store.all(CERTIFICATE_REQUESTS)


def test_a_certificate_that_nobody_signs_is_given_up(world: World) -> None:
    with pytest.raises(Terminal, match="the controller manager has not signed the certificate"):
        personal_kubeconfig(_record(world), "bert", groups=(), life=timedelta(hours=8), clock=world.clock)
    assert not world.kube().store.all(CERTIFICATE_REQUESTS)


@pytest.mark.parametrize(
    ("user", "groups", "message"),
    [
        ("system:admin", (), "--user: 'system:admin' is one of Kubernetes' own"),
        ("bert", ("system:masters",), "--group: 'system:masters' is one of Kubernetes' own"),
        ("", (), "--user: '' is no name"),
        ("a b", (), "is no name"),
        ("-x", (), "is no name"),
    ],
)
def test_names_that_nobody_gets_are_refused(world: World, user: str, groups: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        personal_kubeconfig(_record(world), user, groups=groups, life=timedelta(hours=8), clock=world.clock)
    assert not world.kube().store.calls[f"create {CERTIFICATE_REQUESTS.plural}"]


def test_how_long_it_counts() -> None:
    assert [parse_life(one) for one in ("10m", "8h", "365d")] == [
        timedelta(minutes=10),
        timedelta(hours=8),
        timedelta(days=365),
    ]
    for wrong in ("", "8", "9m", "366d", "1w", "-1h", "8 h", "٨h"):
        with pytest.raises(UsageError, match="should be 10m to 365d"):
            parse_life(wrong)

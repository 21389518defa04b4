"""`up` by a credential of the user's that may not make others: the parts log in with it, and it stays the user's."""

from __future__ import annotations

import base64
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moyai.bootstrap.addons import addons
from moyai.cloud.credentials import Reach, Use
from moyai.cloud.memory import Killed, MemoryCloud
from moyai.cloud.memory.store import StoredCredential
from moyai.core.errors import Terminal, UsageError
from moyai.core.keys import Kind
from moyai.core.yamlread import read
from moyai.lifecycle import status
from moyai.lifecycle.record import Record
from moyai.plan import keys, text
from moyai.plan.addons import AddonFacts
from moyai.plan.graph import Made
from moyai.plan.observed import AccountFacts
from moyai.spec.load import parse
from tests.unit.lifecycle_world import World, whole

MINE = StoredCredential("mine-id", "mine-secret", use=None)


def logged_in(world: World, own: StoredCredential = MINE) -> MemoryCloud:
    """The world's cloud as this credential of the user's sees it."""
    world.store.credentials["mine"] = own
    world.cloud = world.cloud.log_in(own.id, own.secret)
    return world.cloud


def own_parts(world: World) -> list[str]:
    return [line for line in whole() if not line.startswith("credential")] + ["credential mine"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_the_plan_says_that_the_parts_get_the_users_own_credential(world: World) -> None:
    logged_in(world)
    shown = "\n".join(text.lines(world.preview()))
    assert "give your credential mine to the cloud controller manager\n" in shown
    assert "give your credential mine to the CSI driver\n" in shown
    assert "create credential" not in shown


def test_the_cluster_is_built_and_goes_again_and_the_credential_stays(world: World) -> None:
    logged_in(world)
    world.up()
    assert world.names() == sorted(own_parts(world))
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    assert record.secrets()["credential"] == record.secrets()["volumes-credential"] == MINE.secret
    assert Kind.CREDENTIAL not in {key.kind for key in record.objects}
    assert not world.up().changed
    report = world.down()
    assert not report.left
    assert [name for name in world.all_names() if name.startswith("credential")] == ["credential mine"]
    assert "mine" not in {entry.name for entry in report.entries}


def test_status_shows_it_with_its_end(world: World) -> None:
    logged_in(world)
    world.up()
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    world.store.credentials["another"] = replace(MINE, id="another-id")
    shown, _ = status._credentials(world.cloud, record)  # pyright: ignore[reportPrivateUsage]
    assert [(one.name, one.limited) for one in shown] == [("mine", False)]


def test_an_unrestricted_credential_makes_others(world: World) -> None:
    logged_in(world, replace(MINE, unrestricted=True))
    world.up()
    assert world.names() == sorted([*whole(), "credential mine"])


def test_a_credential_that_is_of_no_use_to_the_parts_is_refused_before_anything_is_made(world: World) -> None:
    cloud = logged_in(world)
    before = world.all_names()
    refused = replace(cloud.credentials.own_login(), given="", refusal="it is a token")
    cloud.credentials.own_login = lambda: refused
    for attempt in (world.preview, world.up):
        with pytest.raises(Terminal, match="the parts inside the cluster could not log in: it is a token: log in with"):
            attempt()
    assert world.all_names() == before
    assert Record.open(world.paths, "quickstart") is None


@pytest.mark.parametrize("use", list(Use))
def test_a_credential_of_one_part_cannot_serve_both(use: Use, world: World) -> None:
    own = logged_in(world, replace(MINE, use=use)).credentials.own_login()
    assert not own.may_issue
    assert own.refusal.startswith("application credential mine may not call ")


def test_a_run_that_ended_with_one_login_goes_on_with_another(world: World) -> None:
    """First the user's own credential, then a password: the parts that were not told yet get credentials of the cluster."""
    owner = world.cloud
    logged_in(world)
    world.mortal.kill_at(8)
    with pytest.raises(Killed):
        world.up()
    world.mortal.revive()
    world.cloud = owner
    world.up()
    assert world.names() == sorted([*whole(), "credential mine"])
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    assert record.secrets()["credential"] != MINE.secret
    assert not record.objects[keys.secret(keys.CONTROLLERS_CREDENTIAL)].id


# ---- the way to the cloud


def test_the_way_to_the_cloud_is_in_every_parts_manifests(world: World) -> None:
    """What the parts' containers are given, and nobody else's: files in the Secret, variables by reference to it."""
    way = Reach(authorities="PEM", proxies={"HTTPS_PROXY": "http://me:secret@proxy:1", "NO_PROXY": "example.org"})
    choices = world.preview().choices
    assert choices is not None
    made = {
        keys.CONTROLLERS_CREDENTIAL: "a",
        keys.VOLUMES_CREDENTIAL: "b",
        keys.SUBNET: "s",
        keys.security_group("worker"): "g",
    }
    facts = AddonFacts(
        cluster=parse(""),
        uid="u",
        choices=choices,
        made=Made(made),
        account=AccountFacts("r", world.cloud.account.login_url() or "", reach=way),
        cloud_kind=world.cloud.kind,
        api_server="10.0.0.9:6443",
        capabilities=world.cloud.capabilities(),
    )
    for addon in addons(world.cloud.kind.volume_names, spec=parse("").spec):
        assert addon.manifests is not None
        if addon.credential is None:
            continue
        objects: list[Any] = [one for one in read(addon.manifests(facts)) if isinstance(one, dict)]
        secret = next(one for one in objects if one["kind"] == "Secret")
        assert secret["stringData"]["authorities.pem"] == "PEM"
        assert secret["stringData"]["NO_PROXY"] == "example.org,localhost,127.0.0.1,10.0.0.9,kubernetes.default.svc"
        with_proxy: list[str] = [
            container["name"]
            for one in objects
            if one["kind"] in ("Deployment", "DaemonSet")
            for container in one["spec"]["template"]["spec"]["containers"]
            if any(entry["name"] == "HTTPS_PROXY" for entry in container.get("env", ()))
        ]
        assert len(with_proxy) == 1
        others = [one for one in objects if one["kind"] != "Secret"]
        assert "me:secret" not in json.dumps(others)


def test_a_file_of_the_way_that_cannot_be_read_is_said_before_anything_is_made(world: World) -> None:
    def broken() -> Reach:
        raise UsageError("`cacert`: /x cannot be read")

    world.cloud.account.reach = broken
    before = world.all_names()
    with pytest.raises(UsageError, match="cannot be read"):
        world.up()
    assert world.all_names() == before


def test_authorities_that_do_not_fit_into_user_data_are_named(world: World) -> None:
    world.cloud.account.way = Reach(authorities=base64.b64encode(random.Random(1).randbytes(40_000)).decode())
    with pytest.raises(UsageError, match="the certificates of cloud moyai take most of them"):
        world.preview()

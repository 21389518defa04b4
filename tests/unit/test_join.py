"""A record that is taken over: from the cluster's copy, by a login to a control plane, and from an encrypted file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from moyai.core import yamltext
from moyai.core.errors import Retriable, Terminal, UsageError
from moyai.core.ids import CLUSTER_RECORD
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.core.yamlread import read_one
from moyai.kube.resources import KUBE_SYSTEM, SECRETS
from moyai.lifecycle import admin_access, record_files, restore_cluster
from moyai.lifecycle import down as teardown
from moyai.lifecycle import up as building
from moyai.lifecycle.admin_access import copy_by_kubeconfig, copy_by_login, kubeconfig_access
from moyai.lifecycle.backup.encryption import Opener, Recipients
from moyai.lifecycle.cluster_copy import parse_copy
from moyai.lifecycle.joining import Joined, JoinSource, join
from moyai.lifecycle.record import Record
from moyai.lifecycle.record_export import export_record, exported
from moyai.linux.process import Completed, ProcessError
from moyai.spec.load import parse
from tests.unit.lifecycle_world import World

THREE = "spec: {nodePools: [{replicas: 3}]}"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.fixture
def other(tmp_path: Path) -> Paths:
    """A colleague's machine."""
    return Paths(tmp_path / "cache", tmp_path / "colleague")


def _source(world: World) -> JoinSource:
    found = parse_copy(world.kube().store.find(SECRETS, CLUSTER_RECORD, namespace=KUBE_SYSTEM))
    return JoinSource(found.files, "the cluster's copy", found.files["pki/ca.crt"])


def _join(world: World, source: JoinSource, *, paths: Paths, name: str = "quickstart") -> Joined:
    return join(name, source, connect=lambda _: world.cloud, paths=paths, clock=world.clock)


def _changed(source: JoinSource, **fields: object) -> JoinSource:
    record = json.dumps({**json.loads(source.files["record.json"]), **fields}).encode()
    return replace(source, files={**source.files, "record.json": record})


def test_a_colleague_scales_and_removes_what_somebody_else_has_built(world: World, other: Paths) -> None:
    uid = world.up().uid
    done = _join(world, _source(world), paths=other)
    assert (done.name, done.uid, done.changed) == ("quickstart", uid, True)
    folder = other.clusters / "quickstart"
    assert record_files.read(folder) == record_files.read(world.paths.clusters / "quickstart")
    assert folder.stat().st_mode & 0o777 == 0o700
    config = read_one((folder / "kubeconfig").read_text())
    assert config["clusters"][0]["cluster"]["server"] == _server(other)
    assert (folder / "kubeconfig").read_bytes() != (world.paths.clusters / "quickstart" / "kubeconfig").read_bytes()
    reporter = Reporter(clock=world.clock)
    assert not building.up(parse(""), world.cloud, paths=other, reporter=reporter, clock=world.clock).changed
    assert building.up(parse(THREE), world.cloud, paths=other, reporter=reporter, clock=world.clock).changed
    # the first one takes the newer record, and sees nothing to do
    assert not world.up(THREE).changed
    target, record = teardown.target_of("quickstart", other, cloud=world.cloud)
    assert not teardown.down(target, record, cloud=world.cloud, paths=other, reporter=reporter, clock=world.clock).left
    assert world.all_names() == []


def _server(paths: Paths) -> str:
    record = Record.open(paths, "quickstart")
    assert record is not None
    return f"https://{record.api_address}:6443"


def test_joining_again_changes_nothing_and_takes_what_is_newer(world: World, other: Paths) -> None:
    world.up()
    _join(world, _source(world), paths=other)
    assert not _join(world, _source(world), paths=other).changed
    world.up(THREE)
    assert _join(world, _source(world), paths=other).changed
    assert record_files.read(other.clusters / "quickstart") == record_files.read(world.paths.clusters / "quickstart")


def test_a_copy_that_is_not_newer_is_refused(world: World, other: Paths) -> None:
    world.up()
    old = _source(world)
    world.up(THREE)
    _join(world, _source(world), paths=other)
    before = record_files.read(other.clusters / "quickstart")
    with pytest.raises(
        UsageError, match=r"is not newer than this machine's record of cluster quickstart \(write \d+, here \d+"
    ):
        _join(world, old, paths=other)
    assert record_files.read(other.clusters / "quickstart") == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "demo"}, "is the record of cluster demo, not of quickstart"),
        ({"uid": "0123456789"}, r"cloud moyai holds nothing of cluster quickstart \(0123456789\)"),
        ({"version": 9}, "cannot be read: its version is 9"),
        ({"seats": 1}, "cannot be read: seats"),
    ],
    ids=["name", "cloud", "later version", "damaged"],
)
def test_what_is_not_to_be_joined_is_refused(world: World, other: Paths, fields: dict[str, object], message: str) -> None:
    world.up()
    with pytest.raises(UsageError, match=message):
        _join(world, _changed(_source(world), **fields), paths=other)
    assert not list(other.clusters.glob("*/*")) if other.clusters.exists() else True


def test_the_record_of_another_authority_is_refused(world: World, other: Paths) -> None:
    world.up()
    strange = replace(_source(world), authorities=b"-----BEGIN CERTIFICATE-----\nother\n-----END CERTIFICATE-----\n")
    with pytest.raises(UsageError, match="is the record of another cluster: its authority is not that of the API"):
        _join(world, strange, paths=other)


def test_a_name_that_another_cluster_has_here_is_refused(world: World, other: Paths) -> None:
    world.up()
    Record.create(other, "quickstart", spec={"spec": {"cloud": "moyai"}}, clock=world.clock)
    with pytest.raises(UsageError, match="this machine knows another cluster quickstart"):
        _join(world, _source(world), paths=other)


def test_a_killed_join_leaves_nothing_that_counts(world: World, other: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    world.up()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("moyai.lifecycle.joining.rename_durably", killed)
        with pytest.raises(KeyboardInterrupt):
            _join(world, _source(world), paths=other)
    assert Record.names(other) == []
    assert not any((other.state / "joining").iterdir())
    assert _join(world, _source(world), paths=other).changed


# ---- from a file


@pytest.mark.parametrize("passphrase", ["right", "wrong"])
def test_a_record_goes_through_a_file(world: World, other: Paths, tmp_path: Path, passphrase: str) -> None:
    world.up()
    file = tmp_path / "quickstart.moyai"
    made = export_record(
        "quickstart", file, recipients=Recipients(passphrase="right"), replaces=False, paths=world.paths, clock=world.clock
    )
    assert {one.name for one in made.entries} == set(_source(world).files)
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in file.read_bytes()
    if passphrase == "wrong":
        with pytest.raises(UsageError, match="the passphrase is another"):
            exported(file, Opener(passphrase=passphrase))
        return
    assert _join(world, exported(file, Opener(passphrase=passphrase)), paths=other).changed
    assert record_files.read(other.clusters / "quickstart") == record_files.read(world.paths.clusters / "quickstart")
    with pytest.raises(UsageError, match="is there already"):
        export_record(
            "quickstart", file, recipients=Recipients(passphrase="x"), replaces=False, paths=world.paths, clock=world.clock
        )


def test_a_cluster_cannot_be_restored_from_a_record_alone(world: World, other: Paths, tmp_path: Path) -> None:
    world.up()
    file = tmp_path / "quickstart.moyai"
    export_record(
        "quickstart", file, recipients=Recipients(passphrase="x"), replaces=False, paths=world.paths, clock=world.clock
    )
    wish = restore_cluster.RestoreWish()
    with (
        pytest.raises(UsageError, match="has no snapshot of etcd: a cluster cannot be restored from it"),
        restore_cluster.staged_backup(file, Opener(passphrase="x"), wanted=wish, paths=other),
    ):
        pass


# ---- the way in


def _kubeconfig(world: World, tmp_path: Path, **changes: object) -> Path:
    config = read_one((world.paths.clusters / "quickstart" / "kubeconfig").read_text())
    file = tmp_path / "config"
    file.write_text(yamltext.dump({**config, **changes}))
    return file


def test_a_kubeconfig_leads_to_the_copy(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.up()
    access = kubeconfig_access(_kubeconfig(world, tmp_path), "quickstart")
    assert access.authorities == _source(world).authorities
    seen: list[str] = []

    def api(text: str) -> object:
        seen.append(text)
        return world.kube()

    monkeypatch.setattr(admin_access, "KubeApi", api)
    assert copy_by_kubeconfig(access, "quickstart").files == _source(world).files
    assert seen == [access.text]
    world.kube().store.vanish(SECRETS, CLUSTER_RECORD, namespace=KUBE_SYSTEM)
    with pytest.raises(UsageError, match="has no record in it"):
        copy_by_kubeconfig(access, "quickstart")


def test_files_beside_a_kubeconfig_are_read(world: World, tmp_path: Path) -> None:
    world.up()
    whole = kubeconfig_access(_kubeconfig(world, tmp_path), "quickstart")
    config = read_one((tmp_path / "config").read_text())
    (tmp_path / "ca.pem").write_bytes(whole.authorities)
    cluster = config["clusters"][0]["cluster"]
    del cluster["certificate-authority-data"]
    cluster["certificate-authority"] = "ca.pem"
    (tmp_path / "config").write_text(yamltext.dump(config))
    assert kubeconfig_access(tmp_path / "config", "quickstart") == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"current-context": "", "contexts": []}, "has neither a context 'quickstart' nor a current one"),
        ({"users": [{"name": "quickstart-admin", "user": {"token": "x"}}]}, "does not log in with a certificate"),
        ({"clusters": 7}, "has neither a context 'quickstart' nor a current one"),
    ],
)
def test_what_is_no_administrators_kubeconfig_is_refused(
    world: World, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    world.up()
    with pytest.raises(UsageError, match=message):
        kubeconfig_access(_kubeconfig(world, tmp_path, **changes), "quickstart")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Retriable("Kubernetes answered 401: Unauthorized"), UsageError),
        (Terminal("the API at https://192.0.2.1:6443 is not this cluster's"), UsageError),
        (Retriable("the API at https://192.0.2.1:6443 does not answer"), Retriable),
    ],
)
def test_a_wrong_key_is_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    world.up()

    class Refusing:
        server = "https://192.0.2.1:6443"

        def get(self, *_: object, **__: object) -> None:
            raise error

    def refusing(_: str) -> Refusing:
        return Refusing()

    monkeypatch.setattr(admin_access, "KubeApi", refusing)
    with pytest.raises(kind, match=str(error)):
        copy_by_kubeconfig(kubeconfig_access(_kubeconfig(world, tmp_path), "quickstart"), "quickstart")


def test_a_control_plane_says_it_by_ssh(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.up()
    secret = world.kube().store.find(SECRETS, CLUSTER_RECORD, namespace=KUBE_SYSTEM)
    said: list[list[str]] = []

    def ssh(words: list[str], **_: object) -> Completed:
        said.append(words)
        return Completed(tuple(words), 0, json.dumps(secret), "")

    monkeypatch.setattr(admin_access, "run", ssh)
    assert copy_by_login("debian@192.0.2.10", "quickstart").files == _source(world).files
    assert said[0][:5] == ["ssh", "-o", "ConnectTimeout=10", "--", "debian@192.0.2.10"]
    for host in ("-oProxyCommand=x", "a b", ""):
        with pytest.raises(UsageError, match="is no host"):
            copy_by_login(host, "quickstart")

    def without(words: list[str], **_: object) -> Completed:
        raise ProcessError(words, "ended with 1", output='Error from server (NotFound): secrets "x" not found')

    monkeypatch.setattr(admin_access, "run", without)
    with pytest.raises(UsageError, match="has no record in it"):
        copy_by_login("192.0.2.10", "quickstart")

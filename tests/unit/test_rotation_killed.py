"""A rotation that is killed before and after each of its steps, at each file of a machine and of the record: the next run
finishes it, and at no moment does one machine refuse what another one shows, signs or stores."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from moyai.bootstrap import rotation_files
from moyai.cloud.memory import Killed
from moyai.kube.resources import PODS as _PODS
from moyai.lifecycle import execute
from moyai.lifecycle import up as building
from moyai.lifecycle.record import Record
from moyai.plan.rotation import Rotated
from tests.fakes.machine_folders import MachineFolders
from tests.unit.rotation_world import ONE, THREE, RotationWorld
from tests.unit.test_lifecycle_prefixes import Cut


def quiet(world: RotationWorld, where: str, *, what: Rotated) -> None:
    """The rotation is done, everywhere, and leaves nothing to do."""
    assert world.record().rotation is None, where
    assert world.broken() == [], where
    keys = world.keys()
    for node in world.folders.nodes():
        assert world.folders.certificates(node, "ca") == x509.load_pem_x509_certificates(keys.ca), where
    assert not (world.record().folder / "pki/next").exists() or not list((world.record().folder / "pki/next").iterdir()), where
    (user,) = yaml.safe_load((world.record().folder / "kubeconfig").read_text())["users"]
    admin = x509.load_pem_x509_certificate(base64.b64decode(user["user"]["client-certificate-data"]))
    assert admin.issuer == x509.load_pem_x509_certificate(keys.ca).subject, where
    if what is Rotated.AUTHORITIES:
        assert x509.load_pem_x509_certificate(keys.ca) != world.first, where
    assert [one for one in world.kube().names(_PODS) if one.startswith("keys-")] == [], where
    assert not world.up(world.spec).changed, where


@pytest.mark.exhaustive
def test_no_moment_of_a_rotation_breaks_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at after each change of each machine."""
    world = RotationWorld(tmp_path, monkeypatch, spec=THREE)
    found: list[str] = []
    work = MachineFolders.work

    def watched(self: MachineFolders, node: str, given: bytes) -> str:
        said = work(self, node, given)
        found.extend(f"{node}: {one}" for one in world.broken())
        return said

    monkeypatch.setattr(MachineFolders, "work", watched)
    for what in Rotated:
        world.through(what)
        assert found == [], what
        world.clock.sleep(3600)


@pytest.mark.exhaustive
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("what", Rotated)
def test_a_rotation_that_is_killed_goes_on(what: Rotated, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    monkeypatch.setattr(building, "new_uid", lambda: "0123456789")
    table, number, killed = execute.table, 0, True
    while killed:
        where = f"{what} cut {'after' if after else 'before'} step {number}"
        world = RotationWorld(tmp_path / str(number), monkeypatch, spec=THREE)
        killed = False
        with monkeypatch.context() as patch:
            patch.setattr(execute, "table", Cut(number, after=after).wrapped(table))
            try:
                world.through(what)
            except Killed:
                killed = True
                assert world.broken() == [], where
        if killed:
            assert world.record().rotation, where
            world.clock.sleep(60)
            world.through(what)
        quiet(world, where, what=what)
        number += 1
    assert number > 4


def _machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RotationWorld, list[tuple[str, bytes]]]:
    """A world, and the orders that its machines get in a rotation of the authorities."""
    world = RotationWorld(folder, monkeypatch, spec=ONE)
    orders: list[tuple[str, bytes]] = []
    work = MachineFolders.work

    def kept(self: MachineFolders, node: str, given: bytes) -> str:
        orders.append((node, given))
        return work(self, node, given)

    with monkeypatch.context() as patch:
        patch.setattr(MachineFolders, "work", kept)
        world.rotate(Rotated.AUTHORITIES)
    return world, orders


@pytest.mark.exhaustive
def test_a_machine_that_is_switched_off_at_any_file_comes_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each rename of a file; the order comes again."""
    monkeypatch.setattr(building, "new_uid", lambda: "0123456789")
    number, killed, replace = 0, True, Path.replace
    while killed:
        world = RotationWorld(tmp_path / str(number), monkeypatch, spec=ONE)
        left, killed = number, False

        def dying(self: Path, target: Any) -> Path:
            nonlocal left
            if "machines" in str(target):
                left -= 1
                if left < 0:
                    raise Killed
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying)
            try:
                world.rotate(Rotated.AUTHORITIES)
            except Killed:
                killed = True
        if killed:
            world.rotate(Rotated.AUTHORITIES)
        quiet(world, f"killed at file {number}", what=Rotated.AUTHORITIES)
        number += 1
    assert number > 40


def test_an_order_that_comes_again_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, orders = _machine(tmp_path, monkeypatch)
    seen = dict(orders)
    ended = len(world.folders.ended)
    for node, order in seen.items():
        assert json.loads(world.folders.work(node, order))["changed"] == [], node
    assert len(world.folders.ended) == ended


@pytest.mark.exhaustive
@pytest.mark.parametrize("what", [Rotated.AUTHORITIES, Rotated.ACCOUNT_KEY])
def test_a_run_killed_at_any_file_of_the_record_goes_on(what: Rotated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write: Callable[..., None] = rotation_files.write_private
    number, killed = 0, True
    while killed:
        world = RotationWorld(tmp_path / str(number), monkeypatch, spec=ONE)
        left, killed = number, False

        def dying(path: Path, content: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            write(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(rotation_files, "write_private", dying)
            try:
                world.through(what)
            except Killed:
                killed = True
        if killed:
            # a machine that is made now gets keys that fit together
            world.store.settle()
            assert not world.up(world.spec).changed
            assert world.broken() == []
            world.through(what)
        quiet(world, f"killed at file {number}", what=what)
        number += 1
    assert number > 4


def test_the_record_says_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = RotationWorld(tmp_path, monkeypatch, spec=ONE)
    monkeypatch.setattr(execute, "WORKERS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(execute, "table", Cut(6, after=False).wrapped(execute.table))
        with pytest.raises(Killed):
            world.rotate(Rotated.AUTHORITIES)
    found = Record.open(world.paths, "quickstart")
    assert found
    assert found.rotation
    assert (str(found.rotation.what), str(found.rotation.stage), found.rotation.done) == ("authorities", "use the new one", "")

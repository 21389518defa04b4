"""Volumes and snapshots, on no server."""

from __future__ import annotations

import pytest

from moyai.cloud.model import DiskState, Volume
from moyai.core.errors import NotFound, Terminal
from tests.contract.site import Site

NOBODY = "00000000-0000-4000-8000-00000000dead"


def volume(site: Site, name: str, *, size_gb: int = 1, zone: str = "") -> Volume:
    """A volume that is there, in the first zone if none is named."""
    zone = zone or site.cloud.disks.zones()[0]
    made = site.cloud.disks.create_volume(
        name=f"{site.uid}-{name}", size_gb=size_gb, zone=zone, metadata={"moyai.cluster": site.uid, "name": name}
    )
    site.until(lambda: site.cloud.disks.volume(made.id).state is not DiskState.CREATING, 60)
    return site.cloud.disks.volume(made.id)


def gone(site: Site, volume_id: str) -> bool:
    try:
        site.cloud.disks.volume(volume_id)
    except NotFound:
        return True
    return False


class Disks:
    def test_a_volume_is_made_found_grown_and_deleted(self, site: Site) -> None:
        disks = site.cloud.disks
        made = volume(site, "plain")
        try:
            assert (made.state, made.size_gb, made.zone) == (DiskState.AVAILABLE, 1, disks.zones()[0])
            assert made.attached_server_ids == ()
            mine = {"moyai.cluster": site.uid, "name": "plain"}
            assert [one.id for one in disks.volumes(metadata=mine)] == [made.id]
            assert [one.id for one in disks.volumes(name=f"{site.uid}-plain")] == [made.id]
            assert disks.volumes(metadata={"moyai.cluster": site.uid, "name": "other"}) == []
            with pytest.raises(Terminal):
                disks.extend_volume(made.id, 1)
            disks.extend_volume(made.id, 2)
            site.until(lambda: disks.volume(made.id).state is DiskState.AVAILABLE, 60)
            assert disks.volume(made.id).size_gb == 2
        finally:
            disks.delete_volume(made.id)
        site.until(lambda: gone(site, made.id), 60)
        disks.delete_volume(made.id)

    def test_a_snapshot_keeps_its_volume_and_gives_another(self, site: Site) -> None:
        disks = site.cloud.disks
        source = volume(site, "source")
        snapshot = disks.create_snapshot(name=f"{site.uid}-snapshot", volume_id=source.id, metadata={"k": "v"})
        site.until(lambda: disks.snapshot(snapshot.id).state is DiskState.AVAILABLE, 60)
        assert [one.id for one in disks.snapshots(volume_id=source.id)] == [snapshot.id]
        assert [one.id for one in disks.snapshots(name=f"{site.uid}-snapshot")] == [snapshot.id]
        assert disks.snapshot(snapshot.id).metadata == {"k": "v"}
        with pytest.raises(Terminal):
            disks.delete_volume(source.id)
        copy = disks.create_volume(name=f"{site.uid}-copy", size_gb=1, metadata={}, snapshot_id=snapshot.id)
        site.until(lambda: disks.volume(copy.id).state is DiskState.AVAILABLE, 60)
        assert disks.volume(copy.id).snapshot_id == snapshot.id
        disks.delete_volume(copy.id)
        site.until(lambda: gone(site, copy.id), 60)
        disks.delete_snapshot(snapshot.id)
        site.until(lambda: not disks.snapshots(volume_id=source.id), 60)
        disks.delete_snapshot(snapshot.id)
        disks.delete_volume(source.id)
        site.until(lambda: gone(site, source.id), 60)

    def test_a_volume_changes_its_type_where_it_is(self, site: Site) -> None:
        disks = site.cloud.disks
        made = volume(site, "typed")
        try:
            other = next(one for one in disks.types() if one.name != made.type_name and one.multiattach is not made.multiattach)
            with pytest.raises(Terminal):
                disks.change_volume_type(made.id, "no-such-type")
            disks.change_volume_type(made.id, other.name)
            site.until(lambda: disks.volume(made.id).state is DiskState.AVAILABLE, 60)
            assert disks.volume(made.id).type_name == other.name
            if other.multiattach is not None:
                assert disks.volume(made.id).multiattach is other.multiattach
            with pytest.raises(Terminal):
                disks.change_volume_type(made.id, other.name)
        finally:
            disks.delete_volume(made.id)
        site.until(lambda: gone(site, made.id), 60)
        with pytest.raises(NotFound):
            disks.change_volume_type(NOBODY, made.type_name)

    def test_a_volume_or_snapshot_that_is_not_there(self, site: Site) -> None:
        disks = site.cloud.disks
        with pytest.raises(NotFound):
            disks.volume(NOBODY)
        with pytest.raises(NotFound):
            disks.snapshot(NOBODY)
        with pytest.raises(NotFound):
            disks.create_snapshot(name="none", volume_id=NOBODY, metadata={})
        disks.delete_volume(NOBODY)
        disks.delete_snapshot(NOBODY)
        disks.forget_attachment(NOBODY)

    def test_types_are_known_by_name_and_an_unknown_one_is_not_there(self, site: Site) -> None:
        assert all(one.id and one.name for one in site.cloud.disks.types())
        with pytest.raises(NotFound):
            site.cloud.disks.create_volume(name="none", size_gb=1, metadata={}, type_name="no-such-type")

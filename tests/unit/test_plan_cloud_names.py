"""What a plan says about names on a cloud that calls objects otherwise than moyai does."""

from __future__ import annotations

from pathlib import Path

import pytest

from moyai.cloud.nifcloud.nifcloud_kind import NifcloudKind
from moyai.core.errors import UsageError
from moyai.core.paths import Paths
from moyai.lifecycle.record import Record
from moyai.lifecycle.up import preview
from moyai.spec.load import dump, parse
from tests.fakes.clock import FakeClock
from tests.unit.lifecycle_world import node_cloud

UID = "0123456789"
NOTE = "node quickstart-workers-0 is server "


class RoomyKind(NifcloudKind):
    """As if its machines started from user data of any size."""

    user_data_limit = 65535
    starts_by_script = False
    takes_rsa_keys = False


def paths(folder: Path) -> Paths:
    return Paths(folder / "cache", folder / "state")


def test_a_note_says_what_the_cloud_calls_a_node_once_the_uid_is_known(tmp_path: Path) -> None:
    cloud, cluster = node_cloud(), parse("")
    cloud.kind = RoomyKind()  # pyright: ignore[reportAttributeAccessIssue]
    assert not [note for note in preview(cluster, cloud, paths=paths(tmp_path)).notes if " is server " in note]
    Record.create(paths(tmp_path), cluster.name, spec=dump(cluster), clock=FakeClock(), uid=UID)
    shown = [note for note in preview(cluster, cloud, paths=paths(tmp_path)).notes if " is server " in note]
    assert len(shown) == 3
    assert f"{NOTE}{NifcloudKind().cloud_name(UID, 'quickstart-workers-0')} in the cloud" in shown


def test_a_cloud_that_calls_objects_as_moyai_does_needs_no_note(tmp_path: Path) -> None:
    cluster = parse("")
    Record.create(paths(tmp_path), cluster.name, spec=dump(cluster), clock=FakeClock(), uid=UID)
    assert not [note for note in preview(cluster, node_cloud(), paths=paths(tmp_path)).notes if " is server " in note]


def test_a_name_that_no_object_can_have_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    cloud = node_cloud()
    cloud.kind = RoomyKind()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UsageError, match=r"'a-cluster-of-several-words-.*' is too long for NIFCLOUD"):
        preview(parse("metadata: {name: a-cluster-of-several-words}"), cloud, paths=paths(tmp_path))
    assert not any("create" in call for call in cloud.calls)

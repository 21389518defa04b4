"""`moyai image upload`: what it makes, finds, replaces and leaves, against the cloud in memory and Glance's own words."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from moyai.cli import main
from moyai.cloud.memory.memory_cloud import MemoryCloud
from moyai.cloud.model import BootDisk, Image, Power, Server
from moyai.core.errors import Retriable, UsageError
from moyai.core.ids import IMAGE_DIGEST
from moyai.core.progress import Reporter
from moyai.images.disk.disk_image import DiskFacts, DiskImage, name_of
from moyai.lifecycle.cloud_image import UploadedImage, plan_upload, upload_disk
from moyai.plan.cluster import plan_up
from moyai.plan.demands import newest_image
from moyai.plan.observed import Recorded
from moyai.spec.load import parse
from tests.unit.openstack_server import Answer, OpenStackServer, openstack_server
from tests.unit.test_plan_cluster import EMPTY

_DISK = BootDisk("qcow2", "12", 8, 1024, agent=True)
_NAME = "moyai-node-1.37.1"


@pytest.fixture
def played() -> Generator[OpenStackServer]:
    with openstack_server() as server:
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "disk.qcow2"
    file.write_bytes(b"QFI\xfb" + bytes(1000))
    return file


def _upload(cloud: MemoryCloud, file: Path, *, digest: str = "aa" * 32, remove_unused: bool = False) -> UploadedImage:
    with Reporter().step("upload") as step:
        return upload_disk(
            cloud,
            file,
            version="1.37.1",
            digest=digest,
            distribution="debian",
            disk=_DISK,
            remove_unused=remove_unused,
            progress=step,
        )


def test_an_image_is_uploaded_once(file: Path) -> None:
    cloud = MemoryCloud()
    first, second = _upload(cloud, file), _upload(cloud, file)
    assert (first.new, second.new) == (True, False)
    assert first.image.id == second.image.id
    assert [one.properties[IMAGE_DIGEST] for one in cloud.images.images(name=_NAME)] == ["aa" * 32]


def test_another_content_stands_beside_and_older_ones_go_when_that_is_asked_for(file: Path) -> None:
    cloud = MemoryCloud()
    old = _upload(cloud, file)
    new = _upload(cloud, file, digest="bb" * 32)
    assert [one.id for one in new.kept] == [old.image.id]
    used = Server("s", "s", "ACTIVE", "az1", "m1", power=Power.RUNNING, image_id=old.image.id)
    cloud.store.servers.put(used)
    again = _upload(cloud, file, digest="bb" * 32, remove_unused=True)
    assert (again.removed, [one.id for one in again.kept]) == ((), [old.image.id])
    cloud.store.servers.put(replace(used, image_id="other", power=Power.STARTING))
    assert _upload(cloud, file, digest="bb" * 32, remove_unused=True).removed == ()
    cloud.store.servers.put(replace(used, image_id="other"))
    assert [one.id for one in _upload(cloud, file, digest="bb" * 32, remove_unused=True).removed] == [old.image.id]
    assert [one.id for one in cloud.images.images(name=_NAME)] == [new.image.id]


def test_an_interrupted_upload_is_replaced_and_images_of_others_are_left_alone(file: Path) -> None:
    cloud = MemoryCloud()
    properties = {IMAGE_DIGEST: "aa" * 32, "moyai_format": "qcow2"}
    cloud.store.images.put(Image("half", _NAME, "QUEUED", ready=False, empty=True, properties=properties))
    cloud.store.images.put(Image("sending", _NAME, "SAVING", ready=False, properties=properties))
    cloud.store.images.put(Image("own", _NAME, "ACTIVE"))
    done = _upload(cloud, file, remove_unused=True)
    # one that is being sent may be another person's upload, of which no server can be made yet
    assert {one.id for one in cloud.images.images(name=_NAME)} == {"own", done.image.id}


def test_the_other_form_of_one_content_is_another_image() -> None:
    properties = {IMAGE_DIGEST: "aa", "moyai_format": "raw"}
    plan = plan_upload([Image("raw", _NAME, "ACTIVE", properties=properties)], [], digest="aa", disk=_DISK)
    assert plan.current is None
    assert [one.id for one in plan.older] == ["raw"]


def test_a_killed_upload_goes_on(file: Path) -> None:
    cloud = MemoryCloud()
    cloud.faults.fail_next("images.upload", Retriable("gone"))
    with pytest.raises(Retriable):
        _upload(cloud, file)
    assert _upload(cloud, file).new


def test_a_spec_means_the_newest_of_its_name_or_one_content() -> None:
    old = Image("1", _NAME, "ACTIVE", created="2026-01-01", properties={IMAGE_DIGEST: "aabb"})
    new = Image("2", _NAME, "ACTIVE", created="2026-02-01", properties={IMAGE_DIGEST: "ccdd"})
    coming = Image("3", _NAME, "SAVING", ready=False, created="2026-03-01")
    images = (old, coming, new)
    assert newest_image(images, _NAME) == new
    assert newest_image(images, "1") == old
    assert newest_image(images, f"{_NAME}@sha256:aa") == old
    assert newest_image(images, f"{_NAME}@sha256:ee") is None
    assert newest_image(images, "other") is None


def test_glance_is_told_what_hypervisors_should_give_the_machine(played: OpenStackServer, file: Path) -> None:
    played.on("POST", "/image/v2/images", Answer(201, {"id": "m", "name": "n", "status": "queued"}))
    played.on("PUT", "/image/v2/images/m/file", Answer(204))
    played.on("GET", "/image/v2/images/m", {"id": "m", "name": "n", "status": "active"})
    images = played.cloud().images
    for disk in (_DISK, replace(_DISK, agent=False, firmware="uefi", format="raw")):
        images.upload(name="n", file=file, distribution="debian", properties={}, disk=disk)
    first, second = (one.json for one in played.made("POST", "/image/v2/images"))
    assert (first["disk_format"], first["min_disk"], first["min_ram"]) == ("qcow2", 8, 1024)
    assert (first["os_type"], first["os_distro"], first["os_version"]) == ("linux", "debian", "12")
    assert (first["hw_disk_bus"], first["hw_scsi_model"], first["hw_cdrom_bus"]) == ("scsi", "virtio-scsi", "scsi")
    assert (first["hw_rng_model"], first["hw_qemu_guest_agent"]) == ("virtio", "yes")
    assert "hw_firmware_type" not in first
    assert second["hw_firmware_type"] == "uefi"
    assert "hw_qemu_guest_agent" not in second
    assert second["disk_format"] == "raw"


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setenv("MOYAI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("MOYAI_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("OS_CLOUD", "OS_AUTH_URL", "OS_CLIENT_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_the_local_cloud_takes_no_disk(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["image", "upload"]) == 2
    assert "boots no disks" in capsys.readouterr().err


def test_a_file_without_its_description_or_its_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = DiskFacts("ab" * 32, "1.37.1", "debian", "12", 3 << 30, agent=True)
    file = tmp_path / name_of(DiskImage(tmp_path, "qcow2", facts))
    file.write_bytes(b"disk")
    (tmp_path / "clouds.yaml").write_text("clouds: {x: {auth_type: none, endpoint: 'http://127.0.0.1:1'}}")
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    cloud = ["--cloud", "x"]
    assert main.run(["image", "upload", str(file), *cloud]) == 2
    described = file.with_name(f"{file.name}.json")
    described.write_text(json.dumps({"odd": 1}))
    assert main.run(["image", "upload", str(file), *cloud]) == 2
    described.write_text(json.dumps(asdict(replace(facts, digest="cd" * 32))))
    assert main.run(["image", "upload", str(file), *cloud]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 3
    assert "should have the name that" in said


def test_a_missing_image_is_made_by_two_commands() -> None:
    with pytest.raises(UsageError) as caught:
        plan_up(parse(""), replace(EMPTY, images=()), recorded=Recorded("quickstart", "0123456789"))
    assert "`moyai image build` and `moyai image upload --cloud moyai` make it" in str(caught.value)

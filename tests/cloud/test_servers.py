"""Servers of the local cloud: real machines in both zones, through Nova's, Cinder's and Glance's own APIs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openstack import exceptions

from moyai.linux.process import run
from tests import sdk
from tests.cloud.server_site import Site, site, until

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="looks into the cloud's namespaces"),
    *sdk.DEPRECATIONS,
]

USER_DATA = "#!/bin/sh\necho user-data-ran >/dev/console\ntouch /root/by-user-data\n"


@pytest.fixture(scope="module")
def place(cloud_name: str) -> Iterator[Site]:
    with site(cloud_name) as made:
        yield made


@pytest.fixture(scope="module")
def three(place: Site) -> list[Any]:
    """Three servers asked for at once, in both zones."""
    asked = [place.boot(f"{number}", zone=zone, user_data=USER_DATA) for number, zone in enumerate(("az1", "az1", "az2"))]
    servers = place.active(*asked)
    for server in servers:
        place.booted(server)
    return servers


def reach(place: Site, source: Any, *, target: Any) -> None:
    # one echo: of several, ping gives the later ones only twice the first one's time, under a millisecond here
    assert " 0% packet loss" in place.sh(source, f"ping -c 1 -W 5 {place.address(target)}")


def test_user_data_ran_and_the_console_tells(place: Site, three: list[Any]) -> None:
    for server in three:
        assert place.sh(server, "ls /root/by-user-data")
        assert "nameserver 10.78.0." in place.sh(server, "cat /etc/resolv.conf")
        assert "user-data-ran" in place.console(server)


def test_pings_within_and_between_zones(place: Site, three: list[Any]) -> None:
    for server in three[1:]:
        reach(place, three[0], target=server)


def test_metadata_service_and_config_drive_say_the_same(place: Site, three: list[Any]) -> None:
    for server in (three[0], three[2]):
        served = json.loads(place.sh(server, "curl -sf -m 20 http://169.254.169.254/openstack/latest/meta_data.json"))
        seed = json.loads(place.sh(server, "cat /var/lib/cloud/seed/config_drive/openstack/latest/meta_data.json"))
        assert served["uuid"] == seed["uuid"] == server.id


def test_a_machine_has_its_flavors_size(place: Site, three: list[Any]) -> None:
    server = three[1]
    assert place.sh(server, "grep MemTotal /proc/meminfo; grep -c ^processor /proc/cpuinfo").split() == [
        "MemTotal:", str(512 << 10), "kB", "1",
    ]  # fmt: skip
    assert place.run(server, "tail /dev/zero").returncode == 137
    assert place.status(server) == ("ACTIVE", None)


def test_a_volume_comes_grows_survives_and_goes(place: Site, three: list[Any]) -> None:
    server, volume = three[0], place.volume(1)
    storage = place.user.block_storage
    place.user.compute.create_volume_attachment(server, volume_id=volume.id)
    storage.wait_for_status(volume, "in-use", wait=60)
    device = f"/dev/disk/by-id/virtio-{volume.id[:20]}"
    until("the volume is seen", lambda: place.run(server, f"test -b {device}").returncode == 0)
    place.sh(server, f"mkfs.ext4 -q {device} && mount {device} /mnt && echo kept >/mnt/file && umount /mnt")
    body = {"os-extend": {"new_size": 2}}
    exceptions.raise_from_response(storage.post(f"/volumes/{volume.id}/action", json=body, microversion="3.42"))
    until("it has grown", lambda: place.sh(server, f"blockdev --getsize64 {device}") == str(2 << 30))
    storage.wait_for_status(volume, "in-use", wait=60)
    place.user.compute.reboot_server(server, "HARD")
    place.wait(server, "ACTIVE")
    assert place.sh(server, f"mount {device} /mnt && cat /mnt/file && umount /mnt") == "kept"
    place.booted(server)
    snapshot = storage.create_snapshot(volume_id=volume.id, name=place.name, is_forced=True)
    storage.wait_for_status(snapshot, "available", wait=60)
    clone = storage.wait_for_status(
        storage.create_volume(size=2, name=place.name, snapshot_id=snapshot.id, availability_zone="az1"), "available", wait=60
    )
    place.user.compute.delete_volume_attachment(server, volume.id)
    storage.wait_for_status(volume, "available", wait=60)
    assert place.run(server, f"test -e {device}").returncode != 0
    assert volume.id not in run(["losetup", "--list", "--output", "BACK-FILE"]).stdout
    for one in (clone, snapshot):
        (storage.delete_volume if one is clone else storage.delete_snapshot)(one)
        storage.wait_for_delete(one, wait=60)


def test_stop_start_reboot_pause(place: Site, three: list[Any]) -> None:
    server, compute = three[1], place.user.compute
    compute.stop_server(server)
    place.wait(server, "SHUTOFF")
    compute.start_server(server)
    place.wait(server, "ACTIVE")
    place.booted(server)
    boot = place.sh(server, "cat /proc/sys/kernel/random/boot_id")
    compute.reboot_server(server, "SOFT")
    until("rebooted", lambda: place.sh(server, "cat /proc/sys/kernel/random/boot_id", check=False) not in ("", boot))
    place.wait(server, "ACTIVE")
    compute.pause_server(server)
    place.wait(server, "PAUSED")
    compute.unpause_server(server)
    place.wait(server, "ACTIVE")
    place.booted(server)


def test_a_suspended_server_is_held_still_over_a_restart_of_nova_compute(place: Site, three: list[Any]) -> None:
    server, compute = three[0], place.user.compute
    place.booted(server)
    boot = place.sh(server, "cat /proc/sys/kernel/random/boot_id")
    place.sh(server, "nohup sh -c 'while sleep 0.2; do date +%s.%N >/root/ticks; done' >/dev/null 2>&1 &")
    ticks = place.machine(server) / "up/root/ticks"
    until("it ticks", ticks.exists)
    compute.suspend_server(server)
    place.wait(server, "SUSPENDED")
    last = ticks.read_text()
    _restarted(place)
    # Nova's periodic comparison with the hypervisor has passed over it
    time.sleep(35)
    found = place.admin.compute.get_server(server.id)
    assert (found.status, found.power_state, found.task_state) == ("SUSPENDED", 7, None)
    assert ticks.read_text() == last
    compute.resume_server(server)
    place.wait(server, "ACTIVE")
    assert place.sh(server, "cat /proc/sys/kernel/random/boot_id") == boot
    until("it goes on", lambda: ticks.read_text() != last)


def test_a_suspended_machine_that_ended_with_its_host_is_started_by_resume(place: Site, three: list[Any]) -> None:
    server = three[0]
    place.user.compute.suspend_server(server)
    place.wait(server, "SUSPENDED")
    old = _nova_compute(place)
    for pid in old:
        os.kill(pid, 9)
    place.end(server)
    until("nova-compute is back", lambda: set(_nova_compute(place)) - set(old), within=60)
    assert place.status(server) == ("SUSPENDED", None)
    place.user.compute.resume_server(server)
    place.wait(server, "ACTIVE", within=90)
    place.booted(server)


def _restarted(place: Site) -> None:
    old = _nova_compute(place)
    for pid in old:
        os.kill(pid, 9)
    until("nova-compute is back", lambda: set(_nova_compute(place)) - set(old), within=60)
    until(
        "it reports", lambda: all(one.state == "up" for one in place.admin.compute.services(binary="nova-compute")), within=60
    )


def test_a_device_has_the_tag_that_it_was_attached_with(place: Site) -> None:
    volume = place.volume(1)
    (server,) = place.active(place.boot("tags", tag="front"))

    def devices(command: str) -> dict[str, list[str]]:
        text = place.sh(server, command)
        return {one.get("serial") or one["type"]: one["tags"] for one in json.loads(text).get("devices", [])}

    served = "curl -sf -m 20 http://169.254.169.254/openstack/latest/meta_data.json"
    assert devices("cat /var/lib/cloud/seed/config_drive/openstack/latest/meta_data.json") == {"nic": ["front"]}
    until("the service answers", lambda: place.run(server, served).returncode == 0)
    place.user.compute.create_volume_attachment(server, volume_id=volume.id, tag="data")
    # the metadata service remembers its answers for a while
    until("the tag is told", lambda: devices(served) == {"nic": ["front"], volume.id: ["data"]}, within=60)
    place.user.compute.delete_volume_attachment(server, volume.id)
    until("it is gone", lambda: devices(served) == {"nic": ["front"]}, within=60)
    body = {"interfaceAttachment": {"net_id": place.network.id, "tag": "back"}}
    answer = place.user.compute.post(f"/servers/{server.id}/os-interface", json=body, microversion="2.49")
    assert answer.status_code == 200, answer.text
    place.delete(server)


def test_reboot_and_poweroff_from_within(place: Site, three: list[Any]) -> None:
    server = three[1]
    boot = place.sh(server, "cat /proc/sys/kernel/random/boot_id")
    place.sh(server, "systemctl --force --no-block reboot", check=False)
    until("rebooted", lambda: place.sh(server, "cat /proc/sys/kernel/random/boot_id", check=False) not in ("", boot))
    assert place.status(server)[0] == "ACTIVE"
    reach(place, server, target=three[2])
    place.booted(server)
    place.sh(server, "systemctl --force --no-block poweroff", check=False)
    place.wait(server, "SHUTOFF")
    place.user.compute.start_server(server)
    place.wait(server, "ACTIVE")


def test_a_crash_is_noticed_at_once(place: Site, three: list[Any]) -> None:
    server = three[2]
    run([*place.inside, "kill", "-9", (place.machine(server) / "pid").read_text().strip()])
    assert place.wait(server, "SHUTOFF") < 15  # 1-2 s on a machine that has nothing else to do
    place.user.compute.start_server(server)
    place.wait(server, "ACTIVE")


def test_machines_outlive_nova_compute(place: Site, three: list[Any]) -> None:
    """It is killed; one machine goes on, one that dies meanwhile is started again as the server is ACTIVE."""
    goes_on, dies = three[0], three[1]
    boot = place.sh(goes_on, "cat /proc/sys/kernel/random/boot_id")
    old = _nova_compute(place)
    for pid in old:
        os.kill(pid, 9)
    run([*place.inside, "kill", "-9", (place.machine(dies) / "pid").read_text().strip()])
    assert place.sh(goes_on, "cat /proc/sys/kernel/random/boot_id") == boot
    until("nova-compute is back", lambda: set(_nova_compute(place)) - set(old), within=60)
    until("the dead machine is back", lambda: place.run(dies, "true").returncode == 0, within=90)
    assert place.sh(goes_on, "cat /proc/sys/kernel/random/boot_id") == boot
    assert place.status(goes_on)[0] == place.status(dies)[0] == "ACTIVE"


def _nova_compute(place: Site) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if f"{place.folder}/conf/nova-hv1.conf" in words and any(word.endswith("/nova-compute") for word in words):
                found.append(int(entry.name))
    return found


def test_an_interface_comes_and_goes(place: Site, three: list[Any]) -> None:
    server, compute = three[0], place.user.compute
    made = compute.create_server_interface(server, net_id=place.network.id)
    until("eth1", lambda: "eth1" in place.sh(server, "ls /sys/class/net"))
    assert made.fixed_ips[0]["ip_address"] in place.sh(server, "ip -o -4 address show dev eth1")
    compute.delete_server_interface(made.port_id, server=server)
    until("no eth1", lambda: "eth1" not in place.sh(server, "ls /sys/class/net"))


def test_an_image_of_a_machine_boots(place: Site, three: list[Any]) -> None:
    place.sh(three[0], "echo from-the-original >/root/mark")
    image = place.user.compute.create_server_image(three[0], name=place.name, wait=True, timeout=300)
    place.undo.callback(place.user.image.delete_image, image.id)
    assert place.sh(three[0], "cat /proc/1/comm") == "systemd"  # it goes on
    (copy,) = place.active(place.boot("copy", image=image))
    assert place.sh(copy, "cat /root/mark") == "from-the-original"
    assert place.sh(copy, "cat /etc/hostname") == copy.name
    place.delete(copy)
    assert place.left(copy) == []


def test_a_rebuilt_server_is_as_new(place: Site, three: list[Any]) -> None:
    server, address = three[1], place.address(three[1])
    place.sh(server, "touch /root/old")
    place.user.compute.rebuild_server(server, image=place.node_image().id)
    until("rebuilding", lambda: place.status(server) != ("ACTIVE", None), within=30)
    place.wait(server, "ACTIVE", within=120)
    assert "old" not in place.sh(server, "ls /root")
    assert place.address(server) == address
    reach(place, server, target=three[0])
    place.booted(server)


def test_a_volume_of_two_servers(place: Site, three: list[Any]) -> None:
    volume = place.volume(1, volume_type="files-multiattach")
    device = f"/dev/disk/by-id/virtio-{volume.id[:20]}"
    for server in three[:2]:
        place.user.compute.create_volume_attachment(server, volume_id=volume.id)
        until("the volume is seen", lambda server=server: place.run(server, f"test -b {device}").returncode == 0)
    place.sh(three[0], f"echo shared | dd of={device} conv=fsync 2>/dev/null")
    assert place.sh(three[1], f"head -c 6 {device}") == "shared"
    place.user.compute.delete_volume_attachment(three[0], volume.id)
    until("gone from the first", lambda: place.run(three[0], f"test -e {device}").returncode != 0)
    assert place.sh(three[1], f"head -c 6 {device}") == "shared"
    place.user.compute.delete_volume_attachment(three[1], volume.id)
    # asked again: the object in hand still says what it said before it was attached
    until("detached", lambda: place.user.block_storage.get_volume(volume.id).status == "available", within=60)
    assert volume.id not in run(["losetup", "--list", "--output", "BACK-FILE"]).stdout


def test_what_cannot_be_done_is_refused(place: Site, three: list[Any]) -> None:
    server, compute = three[0], place.user.compute
    larger = compute.find_flavor("m1.small", ignore_missing=False)
    for refused in (
        lambda: compute.resize_server(server, larger.id),
        lambda: compute.rescue_server(server),
    ):
        with pytest.raises((exceptions.ForbiddenException, exceptions.BadRequestException, exceptions.ConflictException)):
            refused()
    assert place.status(server) == ("ACTIVE", None)


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [("vnc", "novnc"), ("serial", "serial"), ("spice", "spice-html5"), ("mks", "webmks")],
)
def test_a_remote_console_is_refused_in_novas_way(place: Site, three: list[Any], protocol: str, kind: str) -> None:
    body = {"remote_console": {"protocol": protocol, "type": kind}}
    answer = place.user.compute.post(f"/servers/{three[0].id}/remote-consoles", json=body, microversion="2.8")
    assert answer.status_code == 400, answer.text


def test_an_image_that_is_no_root_file_system(place: Site) -> None:
    disk = b"QFI\xfb" + bytes(4096)
    image = place.user.image.create_image(place.name, data=disk, disk_format="raw", container_format="bare", wait=True)
    place.undo.callback(place.user.image.delete_image, image.id)
    server = place.boot("wrong", image=image)
    place.wait(server, "ERROR", within=90)
    fault = place.user.compute.get_server(server.id).fault["message"]
    assert "qcow2" in fault or "unacceptable" in fault.lower()
    place.delete(server)
    assert place.left(server) == []


def test_deleted_servers_leave_nothing(place: Site, three: list[Any]) -> None:
    volume = place.volume(1)
    place.user.compute.create_volume_attachment(three[0], volume_id=volume.id)
    place.user.block_storage.wait_for_status(volume, "in-use", wait=60)
    for server in three:
        place.user.compute.delete_server(server.id)
    for server in three:
        place.delete(server)
        until(f"nothing left of {server.name}", lambda server=server: place.left(server) == [], within=30)
    assert volume.id not in run(["losetup", "--list", "--output", "BACK-FILE"]).stdout
    place.user.block_storage.wait_for_status(volume, "available", wait=60)

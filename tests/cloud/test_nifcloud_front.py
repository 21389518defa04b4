"""NIFCLOUD's API of the local cloud, by the vendor's SDK: a server with a disk behind a balancer, from nothing to nothing."""

from __future__ import annotations

import base64
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

import pytest

from moyai.core.clock import SystemClock
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.core.waiting import NotYet, until
from moyai.localcloud import nifcloud_access
from moyai.localcloud import start_stop as local
from moyai.localcloud.clouds_yaml import user_file
from moyai.localcloud.layout import CloudPaths
from moyai.nifcloud_front.store.front_store import FrontStore
from tests.nifcloud_sdk import client

#: Serves what the machine's kernel and devices are, for whoever asks through the balancer.
SCRIPT = """#!/bin/sh
systemd-run --unit=web python3 -m http.server --directory /dev/disk 8080
"""
PORTS = {"LoadBalancerName": "web", "LoadBalancerPort": 80, "InstancePort": 8080}
PLACE = "pci-0000:03:00.0-scsi-0:0:1:0"


@pytest.fixture(scope="module")
def nifcloud(cloud_name: str) -> Any:
    paths = default_paths()
    config = local.recorded(CloudPaths(paths.cloud(cloud_name)))
    assert config is not None
    local.up(config, paths, reporter=Reporter(), nifcloud=True)
    lines = nifcloud_access.user_file(user_file(), config).read_text().splitlines()
    said = dict(line.split("=", 1) for line in lines)
    return client(
        said["NIFCLOUD_ENDPOINT"],
        key=said["NIFCLOUD_ACCESS_KEY_ID"],
        secret=said["NIFCLOUD_SECRET_ACCESS_KEY"],
        verify=said["NIFCLOUD_CA_FILE"],
    )


def _wait(what: str, look: Callable[[], Any], *, timeout: float = 120) -> Any:
    def attempt() -> Any:
        return look() or NotYet(what)

    def late(_: NotYet) -> AssertionError:
        return AssertionError(f"{what}: not within {timeout:.0f} s")

    return until(attempt, clock=SystemClock(), timeout=timeout, pause=0.5, retry=(), late=late)


def _state(nifcloud: Any, name: str) -> str:
    found = [
        one
        for reservation in nifcloud.describe_instances()["ReservationSet"]
        for one in reservation["InstancesSet"]
        if one["InstanceId"] == name
    ]
    return found[0]["InstanceState"]["Name"] if found else ""


def _disk(nifcloud: Any) -> str:
    found = nifcloud.describe_volumes()["VolumeSet"]
    return found[0]["Status"] if found else ""


def _page(address: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{address}/by-path/", timeout=5) as answer:
            return answer.read().decode()
    except (OSError, HTTPException):
        return ""


def test_a_server_with_a_disk_answers_behind_a_balancer_and_nothing_is_left(nifcloud: Any, cloud_name: str) -> None:
    image = nifcloud.describe_images()["ImagesSet"][0]["ImageId"]
    nifcloud.create_security_group(GroupName="web")
    applied = _wait(
        "firewall group", lambda: nifcloud.describe_security_groups()["SecurityGroupInfo"][0]["GroupStatus"] == "applied"
    )
    assert applied
    nifcloud.run_instances(
        ImageId=image,
        InstanceId="web1",
        InstanceType="small2",
        SecurityGroup=["web"],
        DisableApiTermination=False,
        UserData={"Content": base64.b64encode(SCRIPT.encode()).decode(), "Encoding": "base64"},
    )
    _wait("web1 runs", lambda: _state(nifcloud, "web1") == "running")
    nifcloud.create_volume(VolumeId="data", Size=1, InstanceId="web1", DiskType="2")
    _wait("disk is in use", lambda: _disk(nifcloud) == "in-use")
    shown = nifcloud.describe_instance_attribute(InstanceId="web1", Attribute="blockDeviceMapping")
    assert shown["BlockDeviceMapping"][0]["DeviceName"] == "SCSI (0:1)"
    listener = {"LoadBalancerPort": 80, "InstancePort": 8080, "BalancingType": 1}
    made = nifcloud.create_load_balancer(LoadBalancerName="web", Listeners=[listener])
    vip = made["CreateLoadBalancerResult"]["DNSName"]
    nifcloud.register_instances_with_load_balancer(**PORTS, Instances=[{"InstanceId": "web1"}])
    check = {"Target": "TCP:8080", "Interval": 5, "UnhealthyThreshold": 1}
    nifcloud.configure_health_check(**PORTS, HealthCheck=check)
    assert PLACE in _wait("web1 answers behind the balancer", lambda: PLACE in _page(vip) and _page(vip))

    nifcloud.delete_load_balancer(**PORTS)
    nifcloud.detach_volume(VolumeId="data", InstanceId="web1", Agreement=True)
    _wait("disk is free", lambda: _disk(nifcloud) == "available")
    nifcloud.delete_volume(VolumeId="data")
    nifcloud.stop_instances(InstanceId=["web1"], Force=True)
    _wait("web1 is stopped", lambda: _state(nifcloud, "web1") == "stopped")
    nifcloud.terminate_instances(InstanceId=["web1"])
    _wait("web1 is gone", lambda: not _state(nifcloud, "web1"))
    nifcloud.delete_security_group(GroupName="web")
    _wait("all is gone", lambda: not _left(cloud_name))


def _left(cloud_name: str) -> list[str]:
    """What the front's ledger says is made and not gone, but for what it keeps for everybody; and its works."""
    store = FrontStore(CloudPaths(default_paths().cloud(cloud_name)).state / "nifcloud.db", lambda: 0.0)
    kept = ("zone", "image", "network")
    try:
        with store.transaction() as tx:
            ledger, works = tx.ledger(), tx.works()
    finally:
        store.close()
    gone = {(one.kind, one.uid) for one in ledger if one.verb == "gone"}
    left = [f"{one.kind} {one.uid}" for one in ledger if one.kind not in kept and (one.kind, one.uid) not in gone]
    return [*left, *(f"work on {one.kind} {one.uid}" for one in works)]

"""A disk stays in its zone: its pod waits when no node is left there, `moyai explain` says so, a node there brings it back."""

from __future__ import annotations

import json
from collections.abc import Generator

import pytest

from moyai.kube.objects import parse_claim, parse_pod
from moyai.kube.resources import CLAIMS, PODS
from tests.e2e import disks
from tests.e2e.disks import Zoned, until

SPACE = "zones"


@pytest.fixture(scope="module")
def pod(zoned: Zoned) -> Generator[str]:
    """The database's pod, with a row in it."""
    zoned.apply(zoned.namespace(SPACE), disks.database(SPACE))
    try:
        zoned.kubectl("-n", SPACE, "rollout", "status", "statefulset/db", "--timeout=180s")
        zoned.kubectl("-n", SPACE, "exec", "db-0", "--", "python3", "-c", _store(4711))
        yield "db-0"
    finally:
        zoned.kubectl("delete", "namespace", SPACE, "--timeout=180s")


def _store(number: int) -> str:
    return f"import urllib.request as u; u.urlopen(u.Request('http://127.0.0.1:8080/{number}', method='POST')).read()"


def test_a_pod_whose_zone_has_no_node_waits_and_is_explained(zoned: Zoned, pod: str) -> None:
    api = zoned.api
    volume = parse_claim(api.get(CLAIMS, "data-db-0", namespace=SPACE)).volume
    assert "it runs on" in zoned.moyai("explain", pod, "-n", SPACE, str(zoned.folder)).stdout
    # a StatefulSet's selector would keep it in its pool: only the disk is to hold it
    patch = {
        "spec": {"template": {"spec": {"nodeSelector": None}}, "updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}
    }
    zoned.kubectl("-n", SPACE, "patch", "statefulset", "db", "--type=merge", "-p", json.dumps(patch))
    zoned.write(0)
    zoned.up()
    assert {one["zone"] for one in zoned.status()["nodes"] if one["role"] == "worker"} == {"az2"}

    def waits() -> bool:
        found = json.loads(zoned.moyai("explain", f"{SPACE}/{pod}", zoned.name, "--output", "json").stdout)
        return found["cause"] == "zone" and found["volume"] == volume and found["zone"] == "az1"

    until("it is Pending for its zone", waits, within=120)
    said = zoned.moyai("explain", f"{SPACE}/{pod}", zoned.name).stdout
    print(f"\n{said}")
    assert said.startswith(f"Pod {SPACE}/{pod} is Pending: the disk of its claim data-db-0 (volume {volume}) is in zone az1")
    assert f"{zoned.name}-control-plane-0 is kept for the control plane" in said
    assert f"{zoned.name}-b-0 (az2) cannot reach it" in said
    assert "raise `replicas` of pool a from 0 to 1 in the spec, for a node in az1, and run `moyai up`" in said


def test_with_nodes_in_the_zone_pod_and_disk_are_there_again(zoned: Zoned, pod: str) -> None:
    api = zoned.api
    zoned.write(2)
    zoned.up()
    until("it runs again", lambda: parse_pod(api.get(PODS, pod, namespace=SPACE)).ready, within=180)
    assert parse_pod(api.get(PODS, pod, namespace=SPACE)).node in (f"{zoned.name}-a-0", f"{zoned.name}-a-1")
    rows = zoned.kubectl("-n", SPACE, "exec", pod, "--", "python3", "-c", _LIST)
    assert json.loads(rows) == [4711]


_LIST = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/').read().decode())"


def test_a_pod_that_is_not_there_is_one_line(zoned: Zoned) -> None:
    done = zoned.moyai("explain", "nobody", "-n", SPACE, zoned.name, expect=2)
    assert done.stderr.splitlines()[-1].startswith(f"moyai: there is no pod nobody in namespace {SPACE}: ")

"""Certificates, keys and credentials of a running cluster with three control planes are replaced: pods go on, the API answers
within seconds, what is old counts no more."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import time
from collections.abc import Generator

import pyrage
import pytest

from moyai.core.errors import MoyaiError
from moyai.core.paths import default_paths
from moyai.kube.quick import KubeApi
from moyai.kube.resources import NAMESPACES, NODES, PODS, SECRETS
from moyai.lifecycle.record import Record
from tests.e2e.disks import until
from tests.e2e.driver import MOYAI
from tests.e2e.planes import Client, Planes

pytestmark = pytest.mark.long

SPACE = "rotation"
#: A program that reads the authority once and its token each time, as old clients do; it says what the API answers.
ASKS = """
import ssl, time, urllib.request
folder = "/var/run/secrets/kubernetes.io/serviceaccount/"
trust = ssl.create_default_context(cafile=folder + "ca.crt")
while True:
    try:
        request = urllib.request.Request("https://kubernetes.default.svc/version")
        request.add_header("Authorization", "Bearer " + open(folder + "token").read())
        urllib.request.urlopen(request, timeout=2, context=trust).read()
        print("ok", flush=True)
    except ssl.SSLError as error:
        print("refused", error, flush=True)
    except OSError as error:
        print("refused" if "CERTIFICATE" in str(error) else "away", error, flush=True)
    time.sleep(0.5)
"""


@pytest.fixture(scope="module")
def planes(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Planes]:
    made = Planes(tmp_path_factory.mktemp("rotation"), cloud_name, workers=1)
    try:
        made.moyai("up", str(made.folder))
        made.api.create(NAMESPACES, {"metadata": {"name": SPACE}})
        yield made
    finally:
        report = json.loads(made.moyai("down", made.name, "--yes", "--output", "json").stdout)
    assert report["left"] == 0
    assert not made.objects()


@pytest.fixture(scope="module")
def asks(planes: Planes) -> str:
    """A pod that has read the first authority."""
    name = planes.pod("workers-0", ASKS)
    until("it asks the API", lambda: "ok" in planes.kubectl("logs", name), within=60)
    return name


def record(planes: Planes) -> Record:
    found = Record.open(default_paths(), planes.name)
    assert found is not None
    return found


def api(planes: Planes) -> KubeApi:
    """By the kubeconfig of today."""
    found = record(planes).api()
    assert found is not None
    return found


def workloads(planes: Planes) -> dict[str, tuple[str, int]]:
    """Pod → its UID and how often its containers were started again; static pods and what moyai restarts are left out."""
    own = (
        "etcd-",
        "kube-apiserver-",
        "kube-controller-manager-",
        "kube-scheduler-",
        "moyai-cloud",
        "csi-",
        "snapshot-",
        "keys-",
    )
    return {
        one["metadata"]["name"]: (
            one["metadata"]["uid"],
            sum(state["restartCount"] for state in one["status"].get("containerStatuses", ())),
        )
        for one in api(planes).list(PODS)
        if not one["metadata"]["name"].startswith(own)
    }


def timed(planes: Planes, *words: str) -> None:
    began = time.monotonic()
    planes.moyai(*words, planes.name, "--yes")
    print(f"\n`moyai {' '.join(words)}`: {time.monotonic() - began:.0f} s")


def test_all_certificates_are_renewed_while_the_api_answers(planes: Planes, asks: str) -> None:
    before = workloads(planes)
    shown = api(planes).serving_certificate()
    client = Client(default_paths().clusters / planes.name / "kubeconfig", SPACE).start()
    try:
        until("writes", lambda: len(client.writes.acknowledged) >= 20, within=60)
        began = time.monotonic()
        timed(planes, "certificates", "renew")
    finally:
        client.stop()
    print(
        f"longest time without an answer to reads: {client.reads.gap(began):.2f} s, to writes: {client.writes.gap(began):.2f} s"
    )
    assert not client.lost(api(planes))
    assert api(planes).serving_certificate() != shown
    assert workloads(planes) == before
    planes.settled()


def test_secrets_are_stored_with_another_key(planes: Planes) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "word"}, "data": {"word": "c2VjcmV0"}}
    api(planes).create(SECRETS, body, namespace=SPACE)

    def stored() -> str:
        words = [
            "etcdctl",
            "--cacert=/etc/kubernetes/pki/etcd/ca.crt",
            "--cert=/etc/kubernetes/pki/etcd/healthcheck-client.crt",
        ]
        words += [
            "--key=/etc/kubernetes/pki/etcd/healthcheck-client.key",
            "get",
            f"/registry/secrets/{SPACE}/word",
            "--print-value-only",
        ]
        said = planes.kubectl("-n", "kube-system", "exec", f"etcd-{planes.name}-control-plane-0", "--", *words)
        return base64.b64decode(json.loads(said)["kvs"][0]["value"])[:60].decode(errors="replace")

    first = stored()
    timed(planes, "certificates", "rotate-encryption-key")
    second = stored()
    assert first.startswith("k8s:enc:secretbox:v1:moyai:")
    assert second.startswith("k8s:enc:secretbox:v1:moyai-2"), second
    assert api(planes).get(SECRETS, "word", namespace=SPACE)["data"] == {"word": "c2VjcmV0"}
    planes.settled()


def test_authorities_are_replaced_also_by_a_run_that_was_killed(planes: Planes, asks: str) -> None:
    before = workloads(planes)
    old = (default_paths().clusters / planes.name / "kubeconfig").read_text()
    began = time.monotonic()
    words = [*MOYAI, "certificates", "rotate-ca", planes.name, "--yes"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "use the new one" in line and "control-plane-1" in line:
                break
        process.send_signal(signal.SIGKILL)
    assert record(planes).rotation
    timed(planes, "certificates", "rotate-ca")
    print(f"with the run that was killed: {time.monotonic() - began:.0f} s")
    assert not record(planes).rotation
    with pytest.raises(MoyaiError):
        KubeApi(old).list(NODES)
    assert workloads(planes) == before
    until("its kubelet answers", lambda: "ok" in planes.kubectl("logs", asks, "--tail=2"), within=60)
    assert "refused" not in planes.kubectl("logs", asks)
    # a kubelet with its new certificate takes pods
    name = planes.pod("workers-0", "print('here')")
    until("a new pod runs", lambda: "here" in planes.kubectl("logs", name), within=60)
    planes.settled()


def test_the_key_of_accounts_is_replaced_and_old_tokens_still_count(planes: Planes, asks: str) -> None:
    token = planes.kubectl("create", "token", "default").strip()
    timed(planes, "certificates", "rotate-account-key")
    at = record(planes).rotation
    assert at
    assert at.due
    planes.kubectl("--token", token, "version")
    again = planes.moyai("certificates", "rotate-account-key", planes.name, "--yes").stdout
    assert "on the same command drops the old one" in again
    record(planes).set_rotation(None)
    assert "refused" not in planes.kubectl("logs", asks)


def test_credentials_are_replaced_and_the_old_ones_are_refused(planes: Planes) -> None:
    provider = planes.provider
    old = {one.id for one in provider.credentials.credentials(name_prefix=f"{planes.name}-")}
    assert old
    timed(planes, "credentials", "rotate")
    new = {one.id for one in provider.credentials.credentials(name_prefix=f"{planes.name}-")}
    assert not old & new
    assert len(new) == len(old)
    planes.settled()
    listed = json.loads(planes.moyai("credentials", "list", planes.name, "--output", "json").stdout)
    assert listed["problems"] == []
    assert all(one["owner"] for one in listed["credentials"])
    # the controller manager speaks to the cloud with its new one: a node that joins is initialised by it
    planes.write(2)
    planes.moyai("up", str(planes.folder))
    planes.settled()


def test_a_plan_finds_nothing_to_do(planes: Planes) -> None:
    assert json.loads(planes.moyai("plan", str(planes.folder), "--output", "json").stdout)["steps"] == []


def test_a_backup_is_rehearsed_beside_the_living_cluster(planes: Planes) -> None:
    own = pyrage.x25519.Identity.generate()
    key = planes.folder / "key.txt"
    key.write_text(str(own))
    file = planes.folder / "b.moyai"
    planes.moyai("backup", planes.name, "--file", str(file), "-r", str(own.to_public()))
    before, running = planes.objects(), workloads(planes)
    began = time.monotonic()
    done = planes.moyai("restore", str(file), "-i", str(key), "--rehearse", "--output", "json")
    found = json.loads(done.stdout)
    print(f"\nrehearsed in {time.monotonic() - began:.0f} s, {found['seconds']:.0f} s until it was read: {found['found']}")
    counts = dict(found["found"])
    assert counts["secrets"] == len(api(planes).list(SECRETS))
    assert counts["namespaces"] == len(api(planes).list(NAMESPACES))
    assert planes.objects() == before
    assert not [one.name for one in planes.provider.machines.servers() if one.name.startswith("rehearsal-")]
    assert workloads(planes) == running
    assert planes.status()["backup"]["rehearsed_file"] == file.name

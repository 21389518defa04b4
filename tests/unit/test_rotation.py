"""Certificates and keys of a running cluster are replaced: what a machine has then, what goes on meanwhile, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from cryptography import x509

from moyai.cloud.memory import Killed
from moyai.core.errors import Retriable, Terminal, UsageError
from moyai.kube.quick import ProgramFailed
from moyai.kube.resources import CONFIG_MAPS, NODES
from moyai.lifecycle import execute
from moyai.lifecycle import rotate as rotating
from moyai.lifecycle.certificates import kubeconfig_life
from moyai.lifecycle.status import read
from moyai.plan import text
from moyai.plan.rotation import Rotated
from tests.fakes.machine_folders import STATIC
from tests.unit.rotation_world import ONE, PLANE, THREE, WORKER, RotationWorld
from tests.unit.test_lifecycle_prefixes import Cut


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RotationWorld:
    return RotationWorld(tmp_path, monkeypatch, spec=ONE)


def test_renewed_certificates_have_the_same_authority_and_another_key(world: RotationWorld) -> None:
    before = {name: world.folders.certificates(PLANE, name)[0] for name in ("apiserver", "etcd/peer", "front-proxy-client")}
    old = kubeconfig_life(world.record().folder)
    world.rotate(Rotated.CERTIFICATES)
    for name, was in before.items():
        now = world.folders.certificates(PLANE, name)[0]
        assert now.public_key() != was.public_key(), name
        assert (now.subject, now.issuer) == (was.subject, was.issuer), name
        assert now.not_valid_after_utc > was.not_valid_after_utc, name
        san = x509.SubjectAlternativeName
        assert now.extensions.get_extension_for_class(san) == was.extensions.get_extension_for_class(san), name
    new = kubeconfig_life(world.record().folder)
    assert old
    assert new
    assert new.ends > old.ends
    assert not world.broken()
    assert world.record().rotation is None
    assert not world.folders.ended, "no kubelet starts again for this"


def test_all_machines_trust_the_new_authority_alone_in_the_end(world: RotationWorld) -> None:
    world.rotate(Rotated.AUTHORITIES)
    for node in (PLANE, WORKER):
        (trusted,) = world.folders.certificates(node, "ca")
        assert trusted != world.first, node
        assert world.folders.kubelet(node).issuer == trusted.subject, node
    assert not world.broken()
    command = world.folders.manifest(PLANE, "kube-controller-manager")["spec"]["containers"][0]["command"]
    assert command.count("--cluster-signing-cert-file=/etc/kubernetes/pki/signing-ca.crt") == 1
    info = world.kube().store.find(CONFIG_MAPS, "cluster-info", namespace="kube-public")["data"]["kubeconfig"]
    kubeconfig = yaml.safe_load((world.record().folder / "kubeconfig").read_text())
    data = "certificate-authority-data"
    assert yaml.safe_load(info)["clusters"][0]["cluster"][data] == kubeconfig["clusters"][0]["cluster"][data]
    # machines that are made later get the same
    assert not world.up("spec: {nodePools: [{replicas: 1}]}").changed


def test_a_program_that_knows_the_first_authority_alone_trusts_after_two_rotations(world: RotationWorld) -> None:
    world.rotate(Rotated.AUTHORITIES)
    world.clock.sleep(3600)
    world.rotate(Rotated.AUTHORITIES)
    assert not world.broken()


def test_the_old_account_key_goes_once_no_token_of_it_counts(world: RotationWorld) -> None:
    old = world.folders.public_keys(PLANE)
    first = world.rotate(Rotated.ACCOUNT_KEY)
    assert first.waits_until
    assert old in world.folders.public_keys(PLANE)
    status = read(world.record(), world.cloud, clock=world.clock).rotation
    assert status
    assert first.waits_until in status.text
    assert world.rotate(Rotated.ACCOUNT_KEY) == first, "nothing is to be done before"
    world.clock.sleep(75 * 60)
    assert not world.rotate(Rotated.ACCOUNT_KEY).waits_until
    assert old not in world.folders.public_keys(PLANE)
    assert not world.broken()


def test_all_secrets_are_stored_with_the_new_encryption_key(world: RotationWorld) -> None:
    world.rotate(Rotated.ENCRYPTION_KEY)
    (name,) = world.folders.encryption(PLANE)
    assert name != "moyai"
    assert set(world.folders.secrets.values()) == {name}
    assert not world.broken()
    annotated = [one for one in STATIC if "annotations" in world.folders.manifest(PLANE, one)["metadata"]]
    assert annotated == ["kube-apiserver"], "only what reads the key starts again"


def test_the_plan_has_all_stages_and_does_nothing(world: RotationWorld) -> None:
    stages = rotating.preview("quickstart", world.cloud, what=Rotated.AUTHORITIES, paths=world.paths, clock=world.clock)
    assert [str(one.rotation.stage) for one in stages] == ["trust both", "use the new one", "drop the old one"]
    lines = text.lines(stages[0].plan)
    assert f"set the authorities of node {PLANE}" in lines[1]
    assert world.record().rotation is None


def test_one_control_plane_comes_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = RotationWorld(tmp_path, monkeypatch, spec=THREE)
    (stage,) = rotating.preview("quickstart", world.cloud, what=Rotated.CERTIFICATES, paths=world.paths, clock=world.clock)
    names = [str(step.id) for step in stage.plan.steps]
    planes = [f"quickstart-control-plane-{number}" for number in range(3)]
    turns = [one for name in planes for one in (f"set node {name} keys", f"static pods of {name}")]
    assert names == ["write kubeconfig", *turns]
    assert [len(step.after) for step in stage.plan.steps] == [0, *[1] * 6]


def test_nothing_begins_while_a_node_is_not_ready(world: RotationWorld) -> None:
    world.silence(WORKER, minutes=5)
    with pytest.raises(UsageError, match=f"nodes {WORKER} are not Ready"):
        world.rotate(Rotated.AUTHORITIES)
    assert world.record().rotation is None


def test_another_rotation_waits(world: RotationWorld) -> None:
    world.rotate(Rotated.ACCOUNT_KEY)
    with pytest.raises(
        UsageError, match="the rotation of its service account key is under way: `moyai certificates rotate-acc"
    ):
        world.rotate(Rotated.AUTHORITIES)


def test_a_cluster_without_encryption_has_no_key_to_rotate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = RotationWorld.__new__(RotationWorld)
    super(RotationWorld, world).__init__(tmp_path, monkeypatch)
    world.up("spec: {security: {encryptionAtRest: false}, nodePools: []}")
    with pytest.raises(UsageError, match="has no encryption key: it stores Secrets as they are"):
        world.rotate(Rotated.ENCRYPTION_KEY)


def test_a_machine_that_refuses_for_a_moment_is_asked_again(world: RotationWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kubelet asks its own API server for the rights of others, and that one has just started again."""
    refusals = [Terminal("Kubernetes answered 403: Forbidden"), Retriable("timed out"), Terminal("Kubernetes answered 403")]
    work = world.folders.work

    def refused(node: str, given: bytes) -> str:
        said = work(node, given)
        if refusals:
            raise refusals.pop()
        return said

    monkeypatch.setattr(world.folders, "work", refused)
    world.rotate(Rotated.CERTIFICATES)
    assert not refusals
    assert world.record().rotation is None


def test_a_program_that_fails_ends_it_at_once(world: RotationWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(node: str, given: bytes) -> str:
        raise ProgramFailed("a program in pod x failed: no space left on device")

    monkeypatch.setattr(world.folders, "work", broken)
    before = world.clock.now()
    with pytest.raises(Terminal, match="no space left on device"):
        world.rotate(Rotated.CERTIFICATES)
    assert (world.clock.now() - before).total_seconds() < 60


def test_certificates_of_a_cluster_that_was_just_made_are_renewed_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Certificates begin some minutes before they are signed."""
    world = RotationWorld(tmp_path, monkeypatch, spec=ONE, age=60)
    before = world.folders.certificates(PLANE, "apiserver")
    world.rotate(Rotated.CERTIFICATES)
    assert world.folders.certificates(PLANE, "apiserver") != before


def test_a_kubelet_starts_again_once_and_is_waited_for(world: RotationWorld) -> None:
    """A node is not Ready for a moment after its kubelet has started: what it said before does not count."""
    store, beats = world.kube().store, {PLANE: 1, WORKER: 1}

    def say(node: str, ready: bool) -> None:
        found = store.find(NODES, node)
        beat = {"type": "Ready", "status": str(ready), "lastHeartbeatTime": f"2026-01-01T00:00:{beats[node]:02}Z"}
        store.put(NODES, {**found, "status": {"conditions": [beat]}})

    for node in beats:
        say(node, ready=True)
    seen: list[str] = []
    end = world.folders.ended

    def call(name: str, after: bool) -> None:
        for node in beats:
            if node in end and name == "get nodes" and after:
                seen.append(node)
                if seen.count(node) == 3:
                    beats[node] += 1
                    say(node, ready=False)
                if seen.count(node) == 5:
                    beats[node] += 1
                    say(node, ready=True)

    store.on_call = call
    world.rotate(Rotated.AUTHORITIES)
    assert sorted(end) == sorted(beats), "each of them once in all stages"
    assert all(seen.count(node) >= 3 for node in beats)


def test_a_run_that_goes_on_waits_for_what_the_killed_one_has_started_again(
    world: RotationWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(execute, "table", Cut(2, after=False).wrapped(execute.table))
        with pytest.raises(Killed):
            world.rotate(Rotated.AUTHORITIES)
    world.silence(WORKER, minutes=1)
    before = world.clock.now()
    with pytest.raises(UsageError, match=f"nodes {WORKER} are not Ready"):
        world.rotate(Rotated.AUTHORITIES)
    assert (world.clock.now() - before).total_seconds() >= rotating.SETTLE_TIMEOUT

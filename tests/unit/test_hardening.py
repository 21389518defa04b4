"""Nodes and API servers are hardened by default, each part has its switch, and clusters of before go on as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from moyai.bootstrap import api_server, kubeadm, kubelet
from moyai.bootstrap.machine import ClusterFacts, Secrets, ServerContent, server_content
from moyai.core.errors import Terminal, UsageError
from moyai.core.yamltext import dump as yaml_text
from moyai.images import node_image
from moyai.lifecycle import up as building
from moyai.lifecycle.record import Record
from moyai.plan.changes import classify
from moyai.plan.graph import Made
from moyai.plan.nodes import wanted_nodes
from moyai.plan.steps import CreateServer
from moyai.spec.load import dump, parse
from moyai.spec.model import ClusterSpec
from moyai.spec.security import BEFORE, Security
from tests.unit.lifecycle_world import World
from tests.unit.test_bootstrap import documents, unpack

KEY = api_server.new_encryption_key()
OLD = BEFORE.model_dump(mode="json", by_alias=True)
#: Switch → the value with which a cluster goes without, and the flags and files that are then gone.
SWITCHES: dict[str, tuple[Any, set[str], set[str]]] = {
    "anonymousAuth": (True, {"authentication-config"}, {"authentication.yaml"}),
    "encryptionAtRest": (False, {"encryption-provider-config"}, {"encryption.yaml"}),
    "auditLog": (
        False,
        {"audit-policy-file", "audit-log-path", "audit-log-maxage", "audit-log-maxbackup", "audit-log-maxsize"},
        {"audit.yaml"},
    ),
}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.fixture
def told(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """User data of every machine that was made, by name."""
    found: dict[str, str] = {}

    def content(step: CreateServer, facts: ClusterFacts, *, made: Made, secrets: Secrets) -> ServerContent:
        result = server_content(step, facts, made=made, secrets=secrets)
        found[step.node.name] = result.user_data
        return result

    monkeypatch.setattr(building, "server_content", content)
    return found


def with_security(**fields: Any) -> str:
    return yaml_text({"spec": {"security": fields}})


def spec(version: str = "1.37.1", **fields: Any) -> ClusterSpec:
    return parse(yaml_text({"spec": {"kubernetesVersion": version, "security": fields}})).spec


def init_documents(text: str) -> dict[str, Any]:
    cluster = parse(text)
    node = wanted_nodes(cluster, zones=("az1",), allocations={})[0]
    return documents(kubeadm.init_config(kubeadm.InitFacts(cluster, node, (), "abcdef.0123456789abcdef")).encode())


@pytest.mark.parametrize("chosen", [spec(), spec(**OLD), *(spec(**{name: off}) for name, (off, _, _) in SWITCHES.items())])
def test_every_file_that_a_flag_names_is_on_the_machine_and_in_the_container(chosen: ClusterSpec) -> None:
    files = api_server.files(chosen, encryption_key=KEY)
    named = {value for value in api_server.flags(chosen).values() if value.startswith(api_server.FOLDER)}
    assert named == {f"{api_server.FOLDER}/{name}" for name in files}
    mounted = {volume["mountPath"] for volume in api_server.volumes(chosen)}
    for value in api_server.flags(chosen).values():
        assert not value.startswith("/") or value.rpartition("/")[0] in mounted


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_takes_away_its_flags_and_its_file_and_nothing_else(name: str) -> None:
    off, flags, files = SWITCHES[name]
    chosen = spec(**{name: off})
    assert api_server.flags(spec()).keys() - api_server.flags(chosen).keys() == flags
    everything = api_server.files(spec(), encryption_key=KEY)
    assert everything.keys() - api_server.files(chosen, encryption_key=KEY).keys() == files


def test_what_machines_ask_for_without_credentials_is_answered() -> None:
    """A request of kubeadm's that is unauthorized is repeated until the deadline; only one that is forbidden lets it go on."""
    config = yaml.safe_load(api_server.files(spec(), encryption_key=KEY)["authentication.yaml"])
    paths = {condition["path"] for condition in config["anonymous"]["conditions"]}
    folder = Path(kubeadm.__file__).with_name("data")
    asked = {"/livez", "/readyz"}  # of kubeadm's manifest
    for script in ("bootstrap-control-plane", "bootstrap-worker"):
        text = (folder / script).read_text()
        asked |= {word.partition(":6443")[2] for word in text.split() if ":6443/" in word and word.startswith("https:")}
        asked |= {word.partition("@ENDPOINT@")[2] for word in text.split() if word.startswith("https://@ENDPOINT@/")}
    assert "/api/v1/namespaces/kube-public/configmaps/cluster-info" in asked
    assert asked <= paths


def test_what_limits_requests_without_credentials_is_written_for_the_version() -> None:
    versions = {"1.37.1": "v1", "1.34.0": "v1", "1.33.2": "v1beta1", "1.32.0": "v1beta1"}
    for version, wanted in versions.items():
        found = api_server.files(spec(version), encryption_key=KEY)["authentication.yaml"]
        assert yaml.safe_load(found)["apiVersion"] == f"apiserver.config.k8s.io/{wanted}"
    assert "authentication.yaml" not in api_server.files(spec("1.31.4"), encryption_key=KEY)
    assert "authentication-config" not in api_server.flags(spec("1.31.4"))


def test_machines_have_the_kernel_settings_that_their_kubelets_demand() -> None:
    """Also those of an image that is not moyai's; in moyai's, files stand in for the same settings of the host's kernel."""
    script = (Path(kubeadm.__file__).with_name("data") / "kernel-settings").read_text()
    settings = dict(line.split()[1:] for line in script.splitlines() if line.startswith("want "))
    stand_ins = Path(node_image.__file__).with_name("node_files") / "etc/moyai/proc/sys"
    found = {str(file.relative_to(stand_ins)): file.read_text().strip() for file in stand_ins.rglob("*") if file.is_file()}
    assert settings == found


def test_the_audit_log_never_has_a_body() -> None:
    policy = yaml.safe_load(api_server.files(spec(), encryption_key=KEY)["audit.yaml"])
    assert {rule["level"] for rule in policy["rules"]} == {"None", "Metadata"}
    assert policy["rules"][-1] == {"level": "Metadata"}
    # what concerns Secrets is written down before a rule can leave it out
    first = next(rule for rule in policy["rules"] if "resources" in rule)
    assert (first["level"], first["resources"][0]["resources"]) == ("Metadata", ["secrets", "serviceaccounts/token"])


def test_no_cluster_is_made_without_the_key_that_it_is_to_encrypt_with() -> None:
    with pytest.raises(Terminal, match="has no key"):
        api_server.files(spec(), encryption_key="")
    assert "encryption.yaml" not in api_server.files(spec(**OLD), encryption_key="")


def test_the_kubelets_of_all_nodes_have_what_the_spec_says() -> None:
    text = with_security(podPidsLimit=1000, seccompDefault=False, evictionHard={"nodefs.available": "5%"})
    chosen = parse(text).spec.security
    config = init_documents(text)["KubeletConfiguration"]
    assert (config["podPidsLimit"], config["seccompDefault"], config["protectKernelDefaults"]) == (1000, False, True)
    assert config["evictionHard"]["nodefs.available"] == "5%"
    # what is left out is not without a limit
    assert config["evictionHard"]["imagefs.available"] == "1Gi"
    patch = yaml.safe_load(kubeadm.worker_patches(chosen)[kubelet.PATCH_FILE])
    assert patch.items() <= config.items()
    assert config["imageGCLowThresholdPercent"] < config["imageGCHighThresholdPercent"]


def test_images_go_by_share_of_the_disk_where_the_spec_says_so() -> None:
    found = kubelet.switches(spec(imageGCHighThresholdPercent=85).security)
    assert (found["imageGCHighThresholdPercent"], found["imageGCLowThresholdPercent"]) == (85, 80)


def test_machines_are_logged_in_to_with_keys_and_forward_no_x11() -> None:
    text = (Path(node_image.__file__).with_name("node_files") / "etc/ssh/sshd_config.d/10-moyai.conf").read_text()
    settings = dict(line.split() for line in text.splitlines() if not line.startswith("#"))
    assert {settings[name] for name in ("PasswordAuthentication", "KbdInteractiveAuthentication", "X11Forwarding")} == {"no"}


def test_the_explanation_names_every_switch() -> None:
    text = (Path(__file__).parents[2] / "docs/explanation/security.md").read_text()
    assert [field.alias for field in Security.model_fields.values() if str(field.alias) not in text] == []


def test_profiles_are_open_nowhere() -> None:
    cluster = init_documents("")["ClusterConfiguration"]
    for part in ("apiServer", "controllerManager", "scheduler"):
        assert {"name": "profiling", "value": "false"} in cluster[part]["extraArgs"]
    assert init_documents("")["KubeletConfiguration"]["enableProfilingHandler"] is False


def test_the_encryption_key_is_made_once_and_stays_on_record(world: World, told: dict[str, str]) -> None:
    world.up()
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    key = record.secret("encryption-key")
    assert len(key) == 44
    assert len(told) == 3
    for text in told.values():
        assert key.encode() not in b"".join(unpack(text).values())
    world.up("spec: {nodePools: [{replicas: 3}]}")
    assert record.secret("encryption-key") == key


def test_a_cluster_without_encryption_has_no_key(world: World) -> None:
    world.up(with_security(encryptionAtRest=False))
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    assert record.secret("encryption-key") == ""


# ---- clusters that were built before there was the section


def built_before(world: World, *fields: str) -> None:
    """A cluster whose record is one of before there were these ``fields``, or the whole section."""
    world.up(with_security(**OLD))
    file = world.paths.clusters / "quickstart/record.json"
    data = json.loads(file.read_text())
    for field in fields:
        del data["spec"]["spec"]["security"][field]
    if not fields:
        del data["spec"]["spec"]["security"]
    file.write_text(json.dumps(data))


@pytest.mark.parametrize("fields", [(), ("auditLog", "podPidsLimit")], ids=["no section", "fewer fields"])
def test_a_cluster_of_before_has_nothing_to_do(world: World, fields: tuple[str, ...]) -> None:
    built_before(world, *fields)
    plan = building.preview(parse(""), world.cloud, paths=world.paths, clock=world.clock)
    assert not plan
    assert plan.changes == ()
    # also when its record has been written again
    assert not world.up().changed
    assert not world.up().changed
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    assert record.cluster.spec.security == BEFORE
    assert record.secret("encryption-key") == ""


def test_new_nodes_of_a_cluster_of_before_are_like_the_others(world: World, told: dict[str, str]) -> None:
    built_before(world)
    world.up("spec: {nodePools: [{replicas: 3}]}")
    assert kubelet_patch(told["quickstart-workers-2"]) == kubelet.switches(BEFORE)


def test_new_nodes_of_a_cluster_of_before_are_hardened_where_the_spec_says_so(world: World, told: dict[str, str]) -> None:
    built_before(world)
    text = "spec: {nodePools: [{replicas: 3}], security: {podPidsLimit: 1000}}"
    plan = building.preview(parse(text), world.cloud, paths=world.paths, clock=world.clock)
    reason = "rolling: a kubelet is configured when its machine is made"
    assert f"spec.security.podPidsLimit: -1 → 1000 ({reason})" in [change.text for change in plan.changes]
    world.up(text)
    assert kubelet_patch(told["quickstart-workers-2"]) == {**kubelet.switches(BEFORE), "podPidsLimit": 1000}
    # the spec says nothing of it any more: the cluster keeps what it has
    assert not world.up("spec: {nodePools: [{replicas: 3}]}").changed


@pytest.mark.parametrize("name", ["anonymousAuth", "auditLog", "encryptionAtRest", "podSecurity"])
def test_what_the_api_server_was_started_with_does_not_change(world: World, name: str) -> None:
    built_before(world)
    hardened = Security().model_dump(mode="json", by_alias=True)[name]
    with pytest.raises(UsageError, match=rf"^spec\.security\.{name}: .* should stay .* while the cluster exists"):
        world.up(with_security(**{name: hardened}))


def test_what_a_spec_says_of_security_counts_for_a_cluster_that_is_not_there_yet() -> None:
    given = parse(with_security(podSecurity={"enforce": "baseline"})).spec.security.pod_security
    assert (given.enforce, given.audit, given.warn) == ("baseline", "baseline", "baseline")


def test_the_old_values_are_what_kubernetes_has_without_the_section() -> None:
    """Every field of the section has one: a new field needs an old value too."""
    assert BEFORE.model_fields_set == set(Security.model_fields)
    changes = classify(dump(parse(with_security(**OLD))), dump(parse("")))
    same = "imageGCHighThresholdPercent"
    fields = {field.alias for field in Security.model_fields.values()} - {same}
    assert {change.path for change in changes} == {f"spec.security.{field}" for field in fields}


def kubelet_patch(user_data: str) -> dict[str, Any]:
    return yaml.safe_load(unpack(user_data)[f"etc/moyai/patches/{kubelet.PATCH_FILE}"])

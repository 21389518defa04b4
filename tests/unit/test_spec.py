"""The spec: whole by default, strict, and every error one line that says what it should be."""
# ruff: noqa: E501 (messages are compared whole)

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moyai.core.errors import UsageError
from moyai.spec import doc
from moyai.spec.load import dump, load, parse, validate

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("text", ["", "---\n", "spec:\n", "spec: {}", "apiVersion: moyai.dev/v1alpha1\nkind: Cluster\n"])
def test_an_empty_spec_is_a_whole_cluster(text: str) -> None:
    cluster = parse(text)
    assert cluster == load(None).cluster
    assert cluster.name == "quickstart"
    assert [(pool.name, pool.replicas) for pool in cluster.spec.node_pools] == [("workers", 2)]
    assert cluster.spec.image_name == "moyai-node-1.37.1"


def test_what_is_dumped_reads_again() -> None:
    cluster = parse("spec: {nodePools: [{name: a, labels: {tier: web}, taints: [{key: k, effect: NoSchedule}]}]}")
    assert validate(dump(cluster), source="x") == cluster


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spec: {nodepools: []}", "spec.nodepools: unknown field, should be nodePools?"),
        ("spec: {node_pools: []}", "spec.node_pools: unknown field, should be nodePools?"),
        ("spec: {network: {podCidr: 10.9.0.0/16}}", "spec.network.podCidr: unknown field, should be podCIDR?"),
        (
            "spec: {nodePools: [{size: 3}]}",
            "spec.nodePools[0].size: unknown field, should be one of rootVolume, antiAffinity, name, flavor, zones, replicas, labels, taints, rollingUpdate, "
            "drain, network",
        ),
        ("spec: {nodePools: [{replicas: -1}]}", "spec.nodePools[0].replicas: -1, should be at least 0"),
        ("spec: {nodePools: [{replicas: 501}]}", "spec.nodePools[0].replicas: 501, should be at most 500"),
        ("spec: {nodePools: [{replicas: two}]}", "spec.nodePools[0].replicas: 'two', should be a whole number"),
        ("spec: {nodePools: [{replicas: '2'}]}", "spec.nodePools[0].replicas: '2', should be a whole number"),
        ("spec: {nodePools: [{replicas: 1.5}]}", "spec.nodePools[0].replicas: 1.5, should be a whole number"),
        ("spec: {nodePools: [{replicas: true}]}", "spec.nodePools[0].replicas: true, should be a whole number"),
        ("spec: {nodePools: {name: x}}", "spec.nodePools: a mapping, should be a list"),
        (
            "spec: {nodePools: [{name: A}]}",
            "spec.nodePools[0].name: 'A', should be a DNS label (a-z, 0-9, '-'; begins with a letter, at most 20 characters)",
        ),
        (
            "spec: {nodePools: [{name: control-plane}]}",
            "spec.nodePools[0].name: 'control-plane', should be another name: control-plane is the control plane's own",
        ),
        (
            "spec: {nodePools: [{name: a}, {name: a}]}",
            "spec.nodePools[1].name: 'a', should be a name of its own: nodePools[0] has it too",
        ),
        ("spec: {nodePools: [{zones: [a, a]}]}", "spec.nodePools[0].zones: a list, should be zones, each of them once"),
        ("spec: {nodePools: [{flavor: ''}]}", "spec.nodePools[0].flavor: '', should be a name of 1 to 255 characters"),
        ("spec: {nodePools: [{labels: {a: 1}}]}", "spec.nodePools[0].labels.a: 1, should be text, in quotes"),
        (
            "spec: {nodePools: [{labels: {a b: c}}]}",
            "spec.nodePools[0].labels: a mapping, should be keys such as example.com/name, not 'a b'",
        ),
        (
            "spec: {nodePools: [{labels: {kubernetes.io/x: y}}]}",
            "spec.nodePools[0].labels.kubernetes.io/x: 'y', should be under another key: a node may not give itself labels of kubernetes.io or k8s.io, but for those of node.kubernetes.io",
        ),
        (
            "spec: {nodePools: [{labels: {a: 'b c'}}]}",
            "spec.nodePools[0].labels.a: 'b c', should be at most 63 letters, digits, '-', '_', '.', a letter or digit at either end",
        ),
        ("spec: {nodePools: [{taints: [{key: a}]}]}", "spec.nodePools[0].taints[0].effect: missing, should be there"),
        (
            "spec: {nodePools: [{taints: [{key: a, effect: Never}]}]}",
            "spec.nodePools[0].taints[0].effect: 'Never', should be 'NoSchedule', 'PreferNoSchedule' or 'NoExecute'",
        ),
        (
            "spec: {nodePools: [{replicas: 200}]}",
            "spec.nodePools[0].replicas: 200, should be less: 201 nodes in all do not fit, nodeCIDR 10.8.0.0/24 and podCIDR 10.244.0.0/16 with nodePodPrefix 24 hold 118",
        ),
        (
            "spec: {controlPlane: {replicas: 2}}",
            "spec.controlPlane.replicas: 2, should be 1, 3 or 5 (an even number survives no more deaths than the odd number below it)",
        ),
        (
            "spec: {controlPlane: {replicas: 0}}",
            "spec.controlPlane.replicas: 0, should be 1, 3 or 5 (an even number survives no more deaths than the odd number below it)",
        ),
        (
            "spec: {network: {podCIDR: 10.8.0.0/16}}",
            "spec.network.podCIDR: '10.8.0.0/16', should be apart from nodeCIDR 10.8.0.0/24",
        ),
        (
            "spec: {network: {serviceCIDR: 10.244.0.0/20}}",
            "spec.network.serviceCIDR: '10.244.0.0/20', should be apart from podCIDR 10.244.0.0/16",
        ),
        (
            "spec: {network: {nodeCIDR: 10.96.1.0/24}}",
            "spec.network.serviceCIDR: left out, should be apart from nodeCIDR 10.96.1.0/24",
        ),
        (
            "spec: {network: {podCIDR: 10.9.1.0/16}}",
            "spec.network.podCIDR: '10.9.1.0/16', should be 10.9.0.0/16 (the first address of the range)",
        ),
        ("spec: {network: {podCIDR: ten}}", "spec.network.podCIDR: 'ten', should be an IPv4 range such as 10.8.0.0/24"),
        (
            "spec: {network: {podCIDR: 10.9.0.0}}",
            "spec.network.podCIDR: '10.9.0.0', should be an IPv4 range such as 10.8.0.0/24",
        ),
        ("spec: {network: {nodeCIDR: 10.0.0.0/8}}", "spec.network.nodeCIDR: '10.0.0.0/8', should be a range of /16 to /26"),
        ("spec: {network: {nodePodPrefix: 12}}", "spec.network.nodePodPrefix: 12, should be at least 20"),
        (
            "spec: {network: {podCIDR: 10.9.0.0/24}}",
            "spec.network.nodePodPrefix: left out, should be longer than podCIDR's prefix, /24",
        ),
        ("spec: {network: {dns: [1.1.1]}}", "spec.network.dns[0]: '1.1.1', should be an IPv4 address such as 192.0.2.53"),
        (
            "spec: {network: {dns: [10.96.0.10]}}",
            "spec.network.dns[0]: '10.96.0.10', should be reachable from the machines, so not within podCIDR or serviceCIDR",
        ),
        (
            "spec: {network: {mode: vlan}}",
            "spec.network.mode: 'vlan', should be 'routes', 'host-gw', 'vxlan', 'bgp', 'auto' or 'none'",
        ),
        ("spec: {network: {vxlan: {vni: 0}}}", "spec.network.vxlan.vni: 0, should be at least 1"),
        ("spec: {network: {maxRoutes: 0}}", "spec.network.maxRoutes: 0, should be at least 1"),
        (
            "spec: {access: {apiCIDRs: []}}",
            "spec.access.apiCIDRs: an empty list, should be at least one range: without a range neither moyai nor anybody else reaches the API",
        ),
        ("spec: {loadBalancer: {createMonitor: 'no'}}", "spec.loadBalancer.createMonitor: 'no', should be true or false"),
        ("spec: {volumes: {reclaimPolicy: keep}}", "spec.volumes.reclaimPolicy: 'keep', should be 'Delete' or 'Retain'"),
        ("spec: {kubernetesVersion: 1.37}", "spec.kubernetesVersion: 1.37, should be a version such as 1.37.1 (in quotes)"),
        ("spec: {cloud: ''}", "spec.cloud: '', should be a name of 1 to 255 characters"),
        (
            "spec: {cloud: {nifcloud: {region: 5}}}",
            "spec.cloud: a mapping, should be a name, or one kind of cloud with its settings, which are texts without ',' and '='",
        ),
        (
            "metadata: {name: Foo}",
            "metadata.name: 'Foo', should be a DNS label (a-z, 0-9, '-'; begins with a letter, at most 30 characters)",
        ),
        ("kind: Clster", "kind: 'Clster', should be 'Cluster'"),
        ("apiVersion: v1", "apiVersion: 'v1', should be 'moyai.dev/v1alpha1'"),
        ("spec: 3", "spec: 3, should be a mapping"),
        ("1: 2", "[1]: not text, should be a field's name"),
    ],
)
def test_every_error_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert str(caught.value) == f"cluster.yaml: {message}"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cluster.yaml:2:1: not valid YAML: did not find expected node content"),
        ("kind: Cluster\nkind: Cluster", "cluster.yaml:2:1: 'kind' stands twice"),
        ("- 1", "cluster.yaml: a list, should be a mapping with apiVersion, kind, metadata and spec"),
        ("spec: {}\n---\nspec: {}", "cluster.yaml: 2 documents, should be one"),
        (
            "!!python/object/apply:os.system [true]",
            "cluster.yaml:1:1: tag !!python/object/apply:os.system, should be left out",
        ),
        ("a: &a [*a]", "cluster.yaml:1:8: alias 'a' within the value that it stands for"),
    ],
)
def test_what_is_no_spec_at_all(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.exhaustive
@given(st.text(max_size=60))
def test_any_text_is_a_spec_or_one_line(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("theirs", "theirs"),
        ("{nifcloud: {}}", "nifcloud"),
        ("{nifcloud: {region: jp-east-1}}", "nifcloud:region=jp-east-1"),
        ("{nifcloud: {region: jp-east-1, zone: east-11}}", "nifcloud:region=jp-east-1,zone=east-11"),
    ],
)
def test_a_kind_of_cloud_with_settings_is_one_text_for_its_adapter(text: str, name: str) -> None:
    cluster = parse(f"spec: {{cloud: {text}}}")
    assert cluster.spec.cloud == name
    assert parse(yaml.safe_dump(dump(cluster))).spec.cloud == name


@pytest.mark.parametrize("text", ["{a: {}, b: {}}", "{}", "{nifcloud: 5}", "{nifcloud: {region: 'a,b'}}", "{3: {a: b}}", "[a]"])
def test_what_names_no_cloud_is_one_clear_line(text: str) -> None:
    with pytest.raises(UsageError, match=r"spec\.cloud"):
        parse(f"spec: {{cloud: {text}}}")


def test_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no cluster.yaml in this folder"):
        load(tmp_path)
    (tmp_path / "cluster.yaml").write_text("metadata: {name: here}")
    (tmp_path / "web.yaml").write_text("kind: Service")
    (tmp_path / "notes.txt").write_text("no manifest")
    found = load(tmp_path)
    assert (found.cluster.name, [file.name for file in found.manifests]) == ("here", ["web.yaml"])
    assert load(tmp_path / "cluster.yaml").manifests == ()
    with pytest.raises(UsageError, match=r"nothing: cannot be read \(No such file or directory\)"):
        load(tmp_path / "nothing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8 text"):
        load(tmp_path / "binary")


def test_the_reference_is_what_the_code_says() -> None:
    assert (REPOSITORY / "docs/reference/spec.md").read_text(encoding="utf-8") == doc.render(), (
        "run python -m moyai.spec.doc docs/reference/spec.md"
    )


def test_the_examples_are_valid() -> None:
    found = [load(file.parent) for file in (REPOSITORY / "examples").glob("*/cluster.yaml")]
    assert found

"""Whatever is in a spec's place: a cluster comes of it, or one line that says what would be right, and soon."""
# ruff: noqa: E501 (messages are compared whole)

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from moyai.core.errors import UsageError
from moyai.core.reading import Patience, read_text
from moyai.spec.cluster_network import NetworkSpec
from moyai.spec.load import dump, load, parse, validate
from moyai.spec.model import Cluster, ClusterSpec, NodePool, TaintSpec


def _refused(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert str(caught.value).isprintable()
    return str(caught.value).removeprefix("cluster.yaml")


def _said(call: Callable[[], object]) -> str:
    """What is wrong, in one line; nothing where all is well."""
    try:
        call()
    except UsageError as error:
        return str(error)
    return ""


POOL = ": spec.nodePools[0]"
VALUE = "should be at most 63 letters, digits, '-', '_', '.', a letter or digit at either end"


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ("labels: {a..b/c: x}", f"{POOL}.labels: a mapping, should be keys such as example.com/name, not 'a..b/c'"),
        ("labels: {-a/c: x}", f"{POOL}.labels: a mapping, should be keys such as example.com/name, not '-a/c'"),
        ("labels: {A.com/c: x}", f"{POOL}.labels: a mapping, should be keys such as example.com/name, not 'A.com/c'"),
        ("labels: {/c: x}", f"{POOL}.labels: a mapping, should be keys such as example.com/name, not '/c'"),
        ("labels: {a/b/c: x}", f"{POOL}.labels: a mapping, should be keys such as example.com/name, not 'a/b/c'"),
        ('labels: {"a\\n": x}', f"{POOL}.labels: a mapping, should be keys such as example.com/name, not 'a\\n'"),
        ('labels: {a: "b\\n"}', f"{POOL}.labels.a: 'b\\n', {VALUE}"),
        ('labels: {a: "b,c=d"}', f"{POOL}.labels.a: 'b,c=d', {VALUE}"),
        ("labels: {moyai.dev/pool: other}", f"{POOL}.labels.moyai.dev/pool: 'other', should be under another key: moyai sets the labels of moyai.dev itself"),
        ("labels: {x.moyai.dev/a: b}", f"{POOL}.labels.x.moyai.dev/a: 'b', should be under another key: moyai sets the labels of moyai.dev itself"),
        ("labels: {node-restriction.kubernetes.io/a: b}", f"{POOL}.labels.node-restriction.kubernetes.io/a: 'b', should be under another key: a node may not give itself labels of kubernetes.io or k8s.io, but for those of node.kubernetes.io"),
        ("labels: {topology.kubernetes.io/zone: b}", f"{POOL}.labels.topology.kubernetes.io/zone: 'b', should be under another key: a node may not give itself labels of kubernetes.io or k8s.io, but for those of node.kubernetes.io"),
        ("labels: {node.kubernetes.io/instance-type: b}", f"{POOL}.labels.node.kubernetes.io/instance-type: 'b', should be under another key: the cloud controller manager sets this label itself"),
        ('taints: [{key: a, value: "b\\n", effect: NoSchedule}]', f"{POOL}.taints[0].value: 'b\\n', {VALUE}"),
        ("taints: [{key: a, value: 'b c', effect: NoSchedule}]", f"{POOL}.taints[0].value: 'b c', {VALUE}"),
        ("taints: [{key: a, value: 'b:NoSchedule,c=d', effect: NoSchedule}]", f"{POOL}.taints[0].value: 'b:NoSchedule,c=d', {VALUE}"),
        (f"taints: [{{key: a, value: {'x' * 64}, effect: NoSchedule}}]", f"{POOL}.taints[0].value: '{'x' * 56}…, {VALUE}"),
        ("taints: [{key: a..b/c, effect: NoSchedule}]", f"{POOL}.taints[0].key: 'a..b/c', should be keys such as example.com/name, not 'a..b/c'"),
        ("taints: [{key: a, effect: NoSchedule}, {key: a, value: b, effect: NoSchedule}]", f"{POOL}.taints[1].key: 'a', should be another key or effect: taints[0] has both a and NoSchedule"),
        ("taints: [{key: node.kubernetes.io/out-of-service, effect: NoExecute}]", f"{POOL}.taints[0].key: 'node.kubernetes.io/out-of-service', should be another key: the cluster sets and removes the taints of node.kubernetes.io itself"),
        ("taints: [{key: node.cloudprovider.kubernetes.io/uninitialized, effect: NoSchedule}]", f"{POOL}.taints[0].key: 'node.cloudprovider.kubernetes.io/uninitialized', should be another key: the cluster sets and removes the taints of node.cloudprovider.kubernetes.io itself"),
        ("taints: [{key: moyai.dev/x, effect: NoSchedule}]", f"{POOL}.taints[0].key: 'moyai.dev/x', should be another key: moyai sets the taints of moyai.dev itself"),
        (f"zones: [{'z' * 256}]", f"{POOL}.zones[0]: '{'z' * 56}…, should be a name of 1 to 255 characters"),
        ('flavor: "a\\e[2J"', f"{POOL}.flavor: 'a\\x1b[2J', should be a name of at most 255 characters, none of them a control character"),
    ],
)  # fmt: skip
def test_what_no_node_can_register_with(pool: str, message: str) -> None:
    assert _refused(f"spec: {{nodePools: [{{{pool}}}]}}") == message


@pytest.mark.parametrize(
    "pool",
    [
        "labels: {node.kubernetes.io/exclude-from-external-load-balancers: ''}",
        "labels: {x.node.kubernetes.io/a: b, kubelet.kubernetes.io/c: d, example.com/A_b.c: '1'}",
        "labels: {notkubernetes.io/a: b, mymoyai.dev/c: d}",
        "taints: [{key: a, effect: NoSchedule}, {key: a, effect: NoExecute}, {key: node-role.kubernetes.io/x, effect: NoSchedule}]",
    ],
)
def test_what_nodes_can_register_with(pool: str) -> None:
    parse(f"spec: {{nodePools: [{{{pool}}}]}}")


@pytest.mark.parametrize("field", ["nodeCIDR", "podCIDR", "serviceCIDR"])
@pytest.mark.parametrize(
    ("cidr", "special"),
    [
        ("0.0.0.0/16", "0.0.0.0/8 (no host)"),
        ("127.0.0.0/16", "127.0.0.0/8 (loopback)"),
        ("169.254.0.0/16", "169.254.0.0/16 (link-local addresses, with the cloud's metadata service)"),
        ("224.0.0.0/16", "224.0.0.0/4 (multicast)"),
        ("240.0.0.0/16", "240.0.0.0/4 (reserved addresses)"),
        ("255.255.0.0/16", "240.0.0.0/4 (reserved addresses)"),
    ],
)
def test_ranges_that_carry_no_packets(field: str, cidr: str, special: str) -> None:
    assert (
        _refused(f"spec: {{network: {{{field}: {cidr}}}}}")
        == f": spec.network.{field}: '{cidr}', should be apart from {special}"
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("network: {podCIDR: 169.0.0.0/8}", ": spec.network.podCIDR: '169.0.0.0/8', should be apart from 169.254.0.0/16 (link-local addresses, with the cloud's metadata service)"),
        ("network: {dns: [0.0.0.0]}", ": spec.network.dns[0]: '0.0.0.0', should be the address of a name server, not one of 0.0.0.0/8 (no host)"),
        ("network: {dns: [192.0.2.1, 127.0.0.53]}", ": spec.network.dns[1]: '127.0.0.53', should be the address of a name server, not one of 127.0.0.0/8 (loopback)"),
        ("network: {dns: [192.0.2.1, 192.0.2.1]}", ": spec.network.dns[1]: '192.0.2.1', should be another name server: it is in the list already"),
        ("access: {apiCIDRs: [127.0.0.0/8]}", ": spec.access.apiCIDRs[0]: '127.0.0.0/8', should be a range that clients have, not one of 127.0.0.0/8 (loopback)"),
        ("access: {sshCIDRs: [0.0.0.0/32]}", ": spec.access.sshCIDRs[0]: '0.0.0.0/32', should be a range that clients have, not one of 0.0.0.0/8 (no host)"),
        ("access: {apiCIDRs: [10.0.0.0/8, 10.0.0.0/255.0.0.0]}", ": spec.access.apiCIDRs[1]: '10.0.0.0/255.0.0.0', should be another range: it is in the list already"),
        ("loadBalancer: {provider: \"a\\nb\"}", ": spec.loadBalancer.provider: 'a\\nb', should be a name of at most 255 characters, none of them a control character"),
        (f"loadBalancer: {{provider: {'x' * 60000}}}", f": spec.loadBalancer.provider: '{'x' * 56}…, should be a name of at most 255 characters, none of them a control character"),
        ('"a\\e[2J\\u202e\\n": 1', ": spec.a\\x1b[2J\\u202e\\n: unknown field, should be one of cloud, kubernetesVersion, image, controlPlane, nodePools, network, loadBalancer, access, services, volumes, security, backup, networks, machines"),
        ("volumes: !!bool zz", ":1:17: zz with tag !!bool, should be without the tag"),
        ("nodePools: [{replicas: 010}]", ":1:31: 010 begins with 0 and can be read to base 8 or 10, should be without the 0, or text in quotes"),
        ("nodePools: [{replicas: 1:30}]", ": spec.nodePools[0].replicas: '1:30', should be a whole number"),
        ("nodePools: [{labels: {a: yes}}]", ": spec.nodePools[0].labels.a: true, should be text, in quotes"),
    ],
)  # fmt: skip
def test_other_hostile_values(spec: str, message: str) -> None:
    assert _refused(f"spec: {{{spec}}}") == message


LARGE = {
    "pools": "spec: {nodePools: [" + ",".join(f"{{name: a{n}, replicas: 0}}" for n in range(20_000)) + "]}",
    "unknown keys": "".join(f"k{n}: 1\n" for n in range(80_000)),
    "unknown keys below spec": "spec: {" + ",".join(f"k{n}: 1" for n in range(49_000)) + "}",
    "wrong pools": "spec: {nodePools: [" + ",".join(f"{{name: A{n}}}" for n in range(30_000)) + "]}",
    "labels": "spec: {nodePools: [{labels: {" + ",".join(f"a{n}: b" for n in range(49_000)) + "}}]}",
    "equal taints": "spec: {nodePools: [{taints: [" + "{key: a, effect: NoSchedule}," * 19_000 + "]}]}",
    "name servers": "spec: {network: {dns: [" + ",".join(f"10.3.{n >> 8}.{n & 255}" for n in range(20_000)) + "]}}",
    "ranges": "spec: {access: {apiCIDRs: [" + ",".join(f"10.{n >> 8}.{n & 255}.0/24" for n in range(50_000)) + "]}}",
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", LARGE)
def test_a_large_spec_is_answered_soon(kind: str) -> None:
    start = time.process_time()
    said = _said(lambda: parse(LARGE[kind]))
    assert said.isprintable()
    assert len(said) < 500
    # some 2 s on the slowest machine that tests run on; what is quadratic takes minutes
    assert time.process_time() - start < 8


def test_the_spec_of_a_cluster_that_exists_need_not_keep_younger_rules() -> None:
    document: Any = dump(Cluster())
    pool = document["spec"]["nodePools"][0]
    pool["labels"] = {"moyai.dev/team": "a", "a..b/c": "d"}
    pool["taints"] = [{"key": "a", "value": "b c", "effect": "NoSchedule"}] * 2
    document["spec"]["network"] |= {"podCIDR": "169.254.0.0/16", "dns": ["0.0.0.0", "0.0.0.0"]}
    document["spec"]["access"]["apiCIDRs"] = ["127.0.0.0/8"] * 2
    with pytest.raises(UsageError):
        validate(document, source="x")
    assert dump(validate(document, source="record", recorded=True)) == document


# ---- any bytes, any values


def _names(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


MODELS = (Cluster, ClusterSpec, NodePool, NetworkSpec, TaintSpec)
WORDS = st.sampled_from(sorted({"provider", "apiCIDRs", *(name for model in MODELS for name in _names(model))}))
ODD = st.sampled_from(
    [
        "010",
        "1:30",
        "!!bool zz",
        "*a",
        "&a x",
        ".nan",
        "0x" + "f" * 300,
        "~",
        r'"\e[2J"',
        "10.0.0.0/8",
        "169.254.0.0/16",
        "0.0.0.0",
    ]
)
GLUE = st.sampled_from([": ", "\n", "{", "}", "[", "]", ", ", "  "])
YAML_LIKE = st.lists(WORDS | ODD | GLUE, max_size=30).map(lambda parts: "".join(parts).encode())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | SCALARS, inner, max_size=3)
)


@given(st.binary(max_size=80) | YAML_LIKE)
@example(b"spec: !!bool zz")
@example(b"!!bool (\t!")
@example(b"spec: 0x" + b"f" * 6000)
@example(b'"\\e[2J": 1')
@example(b"a: 2001-99-99")
@example(b"=: 1")
def test_any_bytes_are_a_spec_or_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    assert _said(lambda: load(file)).isprintable(), "one line"


@given(st.dictionaries(WORDS | st.text(max_size=5), VALUES, max_size=4))
def test_any_values_are_a_spec_or_one_line(document: Any) -> None:
    for whole in (document, {"spec": document}, {"spec": {"nodePools": [document]}}, {"spec": {"network": document}}):
        assert _said(lambda whole=whole: validate(whole, source="x")).isprintable(), "one line"


# ---- what is no file


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/proc/self/mem", "/dev/full", "/proc/self/pagemap", "/dev"])
def test_devices_are_answered(device: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(Path(device))
    assert str(caught.value).startswith(device)


def test_a_pipe_is_read_as_its_data_arrives(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # more than a pipe holds: the writer goes on only as it is read
    text = f"# {'x' * 300_000}\nmetadata: {{name: piped}}"
    thread = threading.Thread(target=pipe.write_text, args=(text,))
    thread.start()
    assert load(pipe).cluster.name == "piped"
    thread.join()


def _pipe(content: bytes) -> int:
    """The reading end of a pipe that holds all of ``content``, as the shell leaves it to a program."""
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    return reader


def test_a_pipe_of_the_shell_is_read() -> None:
    reader = _pipe(b"metadata: {name: piped}")
    try:
        assert load(Path(f"/dev/fd/{reader}")).cluster.name == "piped"
    finally:
        os.close(reader)


def test_standard_input_is_read() -> None:
    program = "from pathlib import Path; from moyai.spec.load import load; print(load(Path('-')).cluster.name)"
    done = subprocess.run([sys.executable, "-c", program], input="metadata: {name: piped}", capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("piped\n", "")


def test_a_pipe_that_nobody_writes_to_is_not_waited_for_without_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    patience = Patience(opened=0.05, silence=0.05)
    with pytest.raises(UsageError, match="pipe: nobody writes to this pipe"):
        read_text(pipe, limit=100, should="a spec", patience=patience)
    handle = os.open(pipe, os.O_RDWR)
    try:
        with pytest.raises(UsageError, match="pipe: nothing arrived within"):
            read_text(pipe, limit=100, should="a spec", patience=patience)
        os.write(handle, b"x" * 200)
        with pytest.raises(UsageError, match="larger than"):
            read_text(pipe, limit=100, should="a spec", patience=patience)
    finally:
        os.close(handle)


@pytest.mark.parametrize("name", ["nothing", "a\0b", "\udcff", "x" * 300])
def test_names_of_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        load(tmp_path / name)

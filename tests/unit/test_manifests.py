"""Manifests beside a spec: what is waited for is read from them, and what is no manifest is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moyai.core.errors import UsageError
from moyai.core.progress import Reporter
from moyai.kube.resources import SERVICES
from moyai.lifecycle.apply import AppliedObject, Awaited, applied_objects, read, wait
from moyai.plan.announce.metallb_words import FROM_POOL
from tests.fakes.clock import FakeClock
from tests.fakes.kubernetes import Kubernetes, QuickKubernetes
from tests.unit.ccm_world import service_object

HEAD = "apiVersion: v1\nkind: Service\n"


def _read(tmp_path: Path, text: str | bytes) -> Awaited:
    file = tmp_path / "web.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read([file])


def test_deployments_and_load_balancers_are_awaited(tmp_path: Path) -> None:
    text = (
        f"{HEAD}metadata: &m {{name: a, namespace: n}}\nspec: {{type: LoadBalancer, ports: []}}\n---\n"
        f"{HEAD}metadata: {{name: b}}\nspec: {{}}\n---\n---\n"
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {<<: {name: c}, labels: {a: 010, a: 2001-01-01}}\n---\n"
        "apiVersion: example.com/v1\nkind: Odd\nmetadata: {generateName: x}\nspec: !any foo\n---\n"
        "apiVersion: v1\nkind: List\nitems: []\n"
    )
    assert _read(tmp_path, text) == Awaited(deployments=(("default", "c"),), services=(("n", "a"),))


SHOULD = "should be Kubernetes manifests"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", rf"web\.yaml:2:1: not valid YAML: .*, {SHOULD}"),
        ("[" * 3000, rf"web\.yaml:1:101: nested more than 100 deep, {SHOULD}"),
        ("a", f"a document without apiVersion and kind, {SHOULD}"),
        ("[]", f"a document without apiVersion and kind, {SHOULD}"),
        ("apiVersion: v1\nkind: [a]", f"a document without apiVersion and kind, {SHOULD}"),
        ("apiVersion: 1\nkind: Service", f"a document without apiVersion and kind, {SHOULD}"),
        (f"{HEAD}metadata: [a]", f"Service: metadata is no mapping, {SHOULD}"),
        ("apiVersion: v1\nkind: Odd\nmetadata: a", f"Odd: metadata is no mapping, {SHOULD}"),
        (f"{HEAD}metadata: {{name: a}}\nspec: foo", f"Service: spec is no mapping, {SHOULD}"),
        (f"{HEAD}metadata: {{name: 5}}", r"Service: metadata\.name is no text, should be the object's name"),
        (f"{HEAD}metadata: {{}}", r"Service: metadata\.name is no text, should be the object's name"),
        (f"{HEAD}metadata: {{name: a, namespace: [b]}}", r"metadata\.namespace is no text"),
        (
            "a0: &a0 [x, x]\n" + "\n".join(f"a{n + 1}: &a{n + 1} [{f'*a{n}, ' * 10}]" for n in range(12)),
            "more than 1000000 values",
        ),
        (b"\xff\xfe", f"not UTF-8 text, {SHOULD}"),
    ],
)
def test_what_is_no_manifest_is_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        _read(tmp_path, text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", [f"{HEAD}metadata: !!bool zz", f"{HEAD}metadata: {{name: a}}\nspec: {'9' * 6000}"])
def test_odd_scalars_are_no_accident(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="is no mapping"):
        _read(tmp_path, text)


@example(b"apiVersion: v1\nkind: Service\nmetadata: [a]")
@example(b"!!bool zz")
@example(b"a: 9" + b"9" * 6000)
@given(st.binary(max_size=60) | st.text("[]{}:,&*!|>-? \n'\"apiVersionkdmt", max_size=80).map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    said = ""
    try:
        _read(tmp_path_factory.getbasetemp(), content)
    except UsageError as error:
        said = str(error)
    assert said.isprintable()


def test_what_kubectl_says_of_an_object_decides_whether_it_changed() -> None:
    said = "deployment.apps/web created\n\nservice/unchanged configured\nconfigmap/web unchanged\nwarning:\n"
    applied = applied_objects(said)
    assert applied[0] == AppliedObject("deployment.apps/web", "created")
    assert [str(one) for one in applied if one.changed] == [
        "deployment.apps/web created",
        "service/unchanged configured",
        "warning:",
    ]


def test_an_announced_address_is_enough_because_this_host_need_not_reach_it() -> None:
    store = Kubernetes()
    body = service_object(annotations={FROM_POOL: "main"})
    store.put(SERVICES, {**body, "status": {"loadBalancer": {"ingress": [{"ip": "10.8.0.96"}]}}})
    awaited = Awaited(services=(("default", "web"),))
    api: Any = QuickKubernetes(store)
    with Reporter().step("apply") as progress:
        found = wait(api, awaited, clock=FakeClock(), progress=progress)
    assert [one.url for one in found] == ["http://10.8.0.96/"]

"""The synchronous client and the meaning of refusals, which both clients share."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from moyai.bootstrap import pki
from moyai.core.clock import SystemClock
from moyai.core.errors import Conflict, MoyaiError, NotFound, Retriable, Terminal
from moyai.kube import quick
from moyai.kube.errors import Gone, status_error
from moyai.kube.quick import KubeApi
from moyai.kube.resources import CLAIMS, CONFIG_MAPS, NODES, PODS, SECRETS, VOLUMES
from moyai.kube.watching import KubeClient
from tests.unit.test_kube_websocket import frame


@dataclass
class Server:
    """Stands in for the connection: keeps what was asked, answers what the test says."""

    status: int = 200
    body: bytes = b"{}"
    error: Exception | None = None
    asked: list[tuple[str, str, Any]] = field(default_factory=list[tuple[str, str, Any]])
    types: list[str] = field(default_factory=list[str])
    timeouts: list[float] = field(default_factory=list[float])
    given: bytes = b""

    reason = "Reason"

    @property
    def fp(self) -> io.BytesIO:
        return io.BytesIO(self.body)

    @property
    def sock(self) -> Server:
        return self

    def sendall(self, data: bytes) -> None:
        self.given += data

    def connect(self, host: str, port: int, *, name: str, timeout: float, tls: object) -> Server:
        assert (host, port) == ("203.0.113.9", 6443)
        self.timeouts.append(timeout)
        return self

    def request(self, method: str, path: str, *, body: str | None = None, headers: Mapping[str, str]) -> None:
        if self.error:
            raise self.error
        self.asked.append((method, path, json.loads(body) if body else None))
        self.types.append(headers.get("Content-Type", ""))

    def getresponse(self) -> Server:
        return self

    def read(self) -> bytes:
        return self.body

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> str:
    keys = pki.ensure(tmp_path_factory.mktemp("pki"), SystemClock())
    return pki.admin_kubeconfig(keys, name="demo", server="https://203.0.113.9:6443", clock=SystemClock())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(quick, "Connection", made.connect)
    return made


def test_calls_become_the_requests_of_their_resource(server: Server, kubeconfig: str) -> None:
    api = KubeApi(kubeconfig)
    api.get(NODES, "w-0")
    api.list(PODS, fields="spec.nodeName=w-0", timeout=3)
    api.create(SECRETS, {"kind": "Secret"}, namespace="kube-system")
    api.patch(NODES, "w-0", body={"spec": {"unschedulable": True}})
    api.evict("shop", "db-0")
    api.delete(PODS, "db-0", namespace="shop", grace=0)
    api.delete(VOLUMES, "pvc-1")
    config = {"kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b"}}
    api.apply(CONFIG_MAPS, config, manager="moyai")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "db-0", "namespace": "shop"}}
    assert server.asked == [
        ("GET", "/api/v1/nodes/w-0", None),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dw-0", None),
        ("POST", "/api/v1/namespaces/kube-system/secrets", {"kind": "Secret"}),
        ("PATCH", "/api/v1/nodes/w-0", {"spec": {"unschedulable": True}}),
        ("POST", "/api/v1/namespaces/shop/pods/db-0/eviction", eviction),
        ("DELETE", "/api/v1/namespaces/shop/pods/db-0", {"gracePeriodSeconds": 0}),
        ("DELETE", "/api/v1/persistentvolumes/pvc-1", None),
        ("PATCH", "/api/v1/namespaces/b/configmaps/a?fieldManager=moyai&force=true", config),
    ]
    assert server.types[-1] == "application/apply-patch+yaml"
    assert server.types[3] == "application/strategic-merge-patch+json"
    assert server.timeouts[:2] == [10.0, 3]


def test_a_name_with_a_slash_stays_one_name(server: Server, kubeconfig: str) -> None:
    KubeApi(kubeconfig).get(CLAIMS, "../nodes/x", namespace="a?b")
    assert server.asked[0][1] == "/api/v1/namespaces/a%3Fb/persistentvolumeclaims/..%2Fnodes%2Fx"


def test_a_list_without_items_is_empty(server: Server, kubeconfig: str) -> None:
    server.body = b'{"items": null}'
    assert KubeApi(kubeconfig).list(NODES) == []


def test_deleting_what_is_gone_is_success(server: Server, kubeconfig: str) -> None:
    server.status = 404
    KubeApi(kubeconfig).delete(NODES, "w-0")
    with pytest.raises(NotFound):
        KubeApi(kubeconfig).get(NODES, "w-0")


def test_a_program_in_a_pod_prints_or_says_why_not(server: Server, kubeconfig: str) -> None:
    server.status = 101
    server.body = frame(b"\1hi") + frame(b'\3{"status": "Success"}') + frame(b"", 8)
    said = KubeApi(kubeconfig).execute("shop", "db-0", command=["python3", "a&b"], timeout=3)
    assert said == "hi"
    path = "/api/v1/namespaces/shop/pods/db-0/exec?stdout=true&stderr=true&command=python3&command=a%26b"
    assert server.asked == [("GET", path, None)]
    KubeApi(kubeconfig).execute("shop", "db-0", command=["x"], timeout=3, given=b"secret")
    assert len(server.given) == len(b"secret") + 1 + 6, "one masked frame on the channel of standard input"
    assert server.asked[1] == (
        "GET",
        "/api/v1/namespaces/shop/pods/db-0/exec?stdin=true&stdout=true&stderr=true&command=x",
        None,
    )
    server.body = frame(b"\2one\ntwo\n") + frame(b'\3{"status": "Failure", "message": "exit code 1"}') + frame(b"", 8)
    with pytest.raises(Terminal, match="a program in pod shop/db-0 failed: two"):
        KubeApi(kubeconfig).execute("shop", "db-0", command=["x"], timeout=3)
    server.body = frame(b"\1h")
    with pytest.raises(Retriable, match=r"does not answer \(the connection ended early\)"):
        KubeApi(kubeconfig).execute("shop", "db-0", command=["x"], timeout=3)
    server.status, server.body = 403, b"no"
    with pytest.raises(Terminal):
        KubeApi(kubeconfig).execute("shop", "db-0", command=["x"], timeout=3)


def test_what_a_program_prints_comes_in_pieces_and_counts_once_it_has_ended_well(server: Server, kubeconfig: str) -> None:
    server.status = 101
    good = frame(b"\1one") + frame(b"\2a word") + frame(b"\1two")
    server.body = good + frame(b'\3{"status": "Success"}') + frame(b"", 8)
    assert list(KubeApi(kubeconfig).output("shop", "db-0", command=["x"], timeout=3)) == [b"one", b"two"]
    for end, error, why in (
        (frame(b'\3{"status": "Failure"}') + frame(b"", 8), Terminal, "a program in pod shop/db-0 failed: a word"),
        (frame(b"", 8), Terminal, "a program in pod shop/db-0 failed: a word"),
        (b"\x82", Retriable, "the connection ended early"),
    ):
        server.body = good + end
        pieces = KubeApi(kubeconfig).output("shop", "db-0", command=["x"], timeout=3)
        assert [next(pieces), next(pieces)] == [b"one", b"two"]
        with pytest.raises(error, match=why):
            next(pieces)


def test_an_api_that_does_not_answer_is_retriable_and_not_ready(server: Server, kubeconfig: str) -> None:
    server.error = TimeoutError()
    with pytest.raises(Retriable, match=r"the API at https://203.0.113.9:6443 does not answer \(timed out\)"):
        KubeApi(kubeconfig).list(NODES)
    assert not KubeApi(kubeconfig).ready()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"items": ['])
def test_an_answer_that_is_not_the_apis_is_retriable(server: Server, kubeconfig: str, body: bytes) -> None:
    server.body = body
    with pytest.raises(Retriable, match="not JSON"):
        KubeApi(kubeconfig).list(NODES)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "5",
        "clusters: []",
        "clusters: 5",
        "clusters: !!bool zz",
        "[" * 3000,
        "clusters: [{cluster: {server: nowhere}}]\nusers: [{user: {}}]",
    ],
)
def test_a_damaged_kubeconfig_is_one_line(text: str) -> None:
    with pytest.raises(Terminal, match="the cluster's kubeconfig is damaged: `moyai up` writes it again"):
        KubeApi(text)


CODES = [
    (400, Terminal),
    (401, Retriable),
    (403, Terminal),
    (404, NotFound),
    (408, Retriable),
    (409, Conflict),
    (410, Gone),
    (422, Terminal),
    (429, Retriable),
    (500, Retriable),
    (503, Retriable),
]


@pytest.mark.parametrize(("code", "kind"), CODES)
async def test_both_clients_take_a_status_for_the_same(
    server: Server, kubeconfig: str, code: int, kind: type[MoyaiError]
) -> None:
    server.status, server.body = code, b'{"kind": "Status", "message": "no  such\\nluck"}'

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(code, content=server.body)

    found: list[MoyaiError] = []
    with pytest.raises(MoyaiError) as quick:
        KubeApi(kubeconfig).get(NODES, "w-0")
    found.append(quick.value)
    client = KubeClient(httpx2.AsyncClient(base_url="https://203.0.113.9:6443", transport=httpx2.MockTransport(answer)))
    with pytest.raises(MoyaiError) as watching:
        await client.get(NODES, "w-0")
    found.append(watching.value)
    await client.close()
    assert [type(one) for one in found] == [kind, kind]
    assert [str(one) for one in found] == [f"Kubernetes answered {code}: no such luck (in GET /api/v1/nodes/w-0)"] * 2


def test_a_refusal_without_words_says_its_status() -> None:
    assert status_error(502, "", operation="GET /x").message == "Kubernetes answered 502"


def test_the_commands_import_no_client_library() -> None:
    modules = "moyai.cli.cluster, moyai.cli.explain, moyai.lifecycle.status, moyai.lifecycle.up, moyai.diagnose.gather"
    program = f"import sys, {modules}; print(*({{'lightkube', 'httpx2', 'openstack'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == ([], "")

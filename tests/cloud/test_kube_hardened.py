"""A real API server with a cluster's flags and files: which users it lets in, how it stores Secrets, what it logs."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from moyai.bootstrap import api_server
from moyai.spec.load import parse
from tests.cloud.kube_api import KubeApi, kube_api

SECRET = "a-word-that-stands-nowhere-else"
SPEC = "spec: {security: {podSecurity: {enforce: baseline, warn: restricted}}}"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Generator[KubeApi]:
    folder = tmp_path_factory.mktemp("hardened")
    spec = parse(SPEC).spec
    here = {api_server.FOLDER: str(folder / "config"), api_server.AUDIT_FOLDER: str(folder / "audit")}
    for place in here.values():
        Path(place).mkdir()
    for name, text in api_server.files(spec, encryption_key=api_server.new_encryption_key()).items():
        (folder / "config" / name).write_text(text)
    flags = api_server.flags(spec)
    for place, ours in here.items():
        flags = {name: value.replace(place, ours) for name, value in flags.items()}
    with kube_api(folder, flags=flags) as started:
        yield started


def anonymous(api: KubeApi, path: str, *, context: ssl.SSLContext | None = None) -> int:
    """The status of a request without credentials."""
    context = context or ssl.create_default_context(cafile=str(api.folder / "certs/apiserver.crt"))
    try:
        with urllib.request.urlopen(api.url + path, context=context, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def make(api: KubeApi, kind: str, *, body: dict[str, Any], namespace: str = "default") -> None:
    api.call("POST", f"/api/v1/namespaces/{namespace}/{kind}", body={"apiVersion": "v1", **body})


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "a"}], **spec}}


def test_health_is_for_everybody_and_the_rest_is_for_users(api: KubeApi) -> None:
    assert [anonymous(api, path) for path in ("/livez", "/readyz", "/healthz")] == [200, 200, 200]
    # let in, and then a matter of its rights: kubeadm gives them
    assert anonymous(api, "/api/v1/namespaces/kube-public/configmaps/cluster-info") == 403
    for path in ("/version", "/api", "/metrics", "/api/v1/namespaces/kube-public/configmaps", "/debug/pprof/"):
        assert anonymous(api, path) == 401, path


def test_profiles_are_open_to_nobody(api: KubeApi) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        api.call("GET", "/debug/pprof/", plain=True)


def test_a_secret_is_stored_encrypted_and_read_again(api: KubeApi) -> None:
    data = {"word": b64encode(SECRET.encode()).decode()}
    make(api, "secrets", body={"kind": "Secret", "metadata": {"name": "s"}, "data": data})
    make(api, "configmaps", body={"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"word": SECRET[::-1]}})
    assert api.call("GET", "/api/v1/namespaces/default/secrets/s")["data"] == data
    stored = b"".join(path.read_bytes() for path in (api.folder / "etcd").rglob("*") if path.is_file())
    assert SECRET[::-1].encode() in stored
    assert SECRET.encode() not in stored
    assert b"k8s:enc:secretbox:v1:moyai:" in stored


def test_the_audit_log_names_the_secret_and_never_what_is_in_it(api: KubeApi) -> None:
    data = {"word": b64encode(SECRET.encode()).decode()}
    make(api, "secrets", body={"kind": "Secret", "metadata": {"name": "audited"}, "data": data})
    log = api.folder / "audit/audit.log"
    end = time.monotonic() + 10
    while "audited" not in log.read_text() and time.monotonic() < end:
        time.sleep(0.1)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    event = next(
        event for event in events if event.get("objectRef", {}).get("resource") == "secrets" and event["verb"] == "create"
    )
    assert (event["user"]["username"], event["level"]) == ("admin", "Metadata")
    assert data["word"] not in log.read_text()
    assert not [event for event in events if event.get("requestObject") or event.get("responseObject")]
    assert log.stat().st_mode & 0o077 == 0


def test_pods_are_held_against_the_level_of_the_spec(api: KubeApi) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        make(api, "pods", body=pod("strong", hostNetwork=True))
    make(api, "pods", body=pod("plain"))
    make(api, "pods", body=pod("strong", hostNetwork=True), namespace="kube-system")


def test_weak_ciphers_are_refused(api: KubeApi) -> None:
    weak = ssl.create_default_context(cafile=str(api.folder / "certs/apiserver.crt"))
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE-RSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA")
    with pytest.raises(urllib.error.URLError):
        anonymous(api, "/livez", context=weak)
    strong = ssl.create_default_context(cafile=str(api.folder / "certs/apiserver.crt"))
    strong.maximum_version = ssl.TLSVersion.TLSv1_2
    assert anonymous(api, "/livez", context=strong) == 200

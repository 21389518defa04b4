"""Pushing to a registry: nothing is sent twice, and every way to fail is an error of its class."""

from __future__ import annotations

import json
import re
import threading
import urllib.parse
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import pytest

from moyai.core.errors import NotFound, Retriable, Terminal, UsageError
from moyai.images.reference import ImageReference
from moyai.images.registry import Registry
from tests.unit.image_archives import CONFIG, LAYER, OCI_INDEX, docker, layout, sha, write


class StrictRegistry(ThreadingHTTPServer):
    """Accepts a blob only with its right digest, and a manifest only after all of its blobs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads = 0
        self.mounts = True
        self.failing: tuple[int, bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def registry(self) -> StrictRegistry:
        return cast(StrictRegistry, self.server)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the base class's)
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        here, url = self.registry, urllib.parse.urlsplit(self.path)
        if here.failing:
            self._answer(here.failing[0], here.failing[1])
        elif found := re.fullmatch(r"/v2/(.+)/blobs/(sha256:[0-9a-f]+)", url.path):
            self._answer(200 if (found[1], found[2]) in here.blobs else 404)
        elif found := re.fullmatch(r"/v2/(.+)/blobs/uploads/(\w*)", url.path):
            query = dict(urllib.parse.parse_qsl(url.query))
            if self.command == "POST" and here.mounts and (query.get("from"), query.get("mount")) in here.blobs:
                here.blobs[found[1], query["mount"]] = here.blobs[query["from"], query["mount"]]
                self._answer(201)
            elif self.command == "POST":
                self._answer(202, Location=f"{here.url}/v2/{found[1]}/blobs/uploads/u1?_state=a%3D%3D")
            elif query.get("_state") == "a==" and query.get("digest") == sha(body):
                here.blobs[found[1], query["digest"]] = body
                here.uploads += 1
                self._answer(201)
            else:
                self._answer(400, b'{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}')
        elif found := re.fullmatch(r"/v2/(.+)/manifests/([\w.:-]+)", url.path):
            self._manifest(found[1], found[2], body=body)
        elif found := re.fullmatch(r"/v2/(.+)/tags/list", url.path):
            tags = [tag for path, tag in here.manifests if path == found[1] and ":" not in tag]
            self._answer(200, json.dumps({"tags": tags}).encode())
        elif url.path == "/v2/_catalog":
            paths = sorted({path for path, _ in here.manifests})
            last = dict(urllib.parse.parse_qsl(url.query)).get("last", "")
            page = [path for path in paths if path > last][:1]  # a page each, to see that all are read
            more = {"Link": f'</v2/_catalog?n=1&last={page[0]}>; rel="next"'} if page and page[0] != paths[-1] else {}
            self._answer(200, json.dumps({"repositories": page}).encode(), **more)
        else:
            self._answer(404)

    def _manifest(self, path: str, tag: str, *, body: bytes) -> None:
        here = self.registry
        if self.command == "PUT":
            document = json.loads(body)
            blobs = [part["digest"] for part in [document.get("config"), *document.get("layers", [])] if part]
            children = [part["digest"] for part in document.get("manifests", [])]
            whole = all((path, one) in here.blobs for one in blobs) and all((path, one) in here.manifests for one in children)
            if not whole:
                self._answer(400, b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}')
                return
            here.manifests[path, tag] = here.manifests[path, sha(body)] = (self.headers["Content-Type"], body)
            self._answer(201)
        elif (path, tag) not in here.manifests:
            self._answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        elif self.command == "DELETE":
            gone = here.manifests[path, tag]
            here.manifests = {key: value for key, value in here.manifests.items() if key[0] != path or value != gone}
            self._answer(202)
        else:
            kind, content = here.manifests[path, tag]
            self._answer(200, content, Content_Type=kind, Docker_Content_Digest=sha(content))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 (the names are the base class's)


@pytest.fixture
def server() -> Generator[StrictRegistry]:
    with StrictRegistry() as here:
        thread = threading.Thread(target=here.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield here
        here.shutdown()
        thread.join()


def test_an_archive_is_pushed_under_its_path_without_its_host(tmp_path: Path, server: StrictRegistry) -> None:
    said: list[str] = []
    pushed = Registry(server.url).push(write(tmp_path / "a", docker()), said.append)
    assert [(str(item.reference), item.sent) for item in pushed] == [("example.org/team/app:1.0", len(CONFIG) + len(LAYER))]
    assert server.blobs == {("team/app", sha(CONFIG)): CONFIG, ("team/app", sha(LAYER)): LAYER}
    assert sha(server.manifests["team/app", "1.0"][1]) == pushed[0].digest
    assert said == ["team/app:1.0"]


def test_what_is_there_is_not_sent_again(tmp_path: Path, server: StrictRegistry) -> None:
    registry, path = Registry(server.url), write(tmp_path / "a", docker(["nginx", "nginx:1"]))
    assert [item.sent > 0 for item in registry.push(path)] == [True, False]
    assert [item.sent for item in registry.push(path)] == [0, 0]
    assert server.uploads == 2


@pytest.mark.parametrize(("mounts", "uploads"), [(True, 2), (False, 4)])
def test_a_blob_of_two_paths_is_sent_once_where_the_registry_mounts_it(
    tmp_path: Path, server: StrictRegistry, mounts: bool, uploads: int
) -> None:
    server.mounts = mounts
    pushed = Registry(server.url).push(write(tmp_path / "a", docker(["one:1", "two:1"])))
    assert [item.sent > 0 for item in pushed] == [True, not mounts]
    assert server.uploads == uploads
    assert {path for path, _ in server.blobs} == {"library/one", "library/two"}


def test_a_name_can_be_given(tmp_path: Path, server: StrictRegistry) -> None:
    path = write(tmp_path / "a", docker([]))
    with pytest.raises(UsageError, match="without a name"):
        Registry(server.url).push(path)
    assert not server.blobs
    Registry(server.url).push(path, name=ImageReference.parse("mine:2"))
    assert ("library/mine", "2") in server.manifests


def test_an_index_is_pushed_after_its_images(tmp_path: Path, server: StrictRegistry) -> None:
    Registry(server.url).push(write(tmp_path / "a", layout(platforms=2)))
    assert server.manifests["team/app", "1.0"][0] == OCI_INDEX


def test_list_and_delete(tmp_path: Path, server: StrictRegistry) -> None:
    registry = Registry(server.url)
    assert registry.list() == []
    for content in (docker(["b:2", "a:1"]), layout(platforms=2)):
        registry.push(write(tmp_path / "a", content))
    found = registry.list()
    assert [(item.path, item.tag) for item in found] == [("library/a", "1"), ("library/b", "2"), ("team/app", "1.0")]
    assert found[0].size == len(CONFIG) + len(LAYER)
    registry.delete(ImageReference.parse("a:1"))
    assert [item.path for item in registry.list()] == ["library/b", "team/app"]
    with pytest.raises(NotFound, match="MANIFEST_UNKNOWN"):
        registry.delete(ImageReference.parse("a:1"))


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((503, b"busy"), Retriable, "503: busy"),
        ((403, b'{"errors":[{"code":"DENIED","message":"not you"}]}'), Terminal, "DENIED not you"),
        ((400, b'{"errors":null}'), Terminal, "400"),
    ],
)
def test_a_refusal_says_the_registrys_own_words(
    tmp_path: Path, server: StrictRegistry, answer: tuple[int, bytes], kind: type[Exception], words: str
) -> None:
    server.failing = answer
    with pytest.raises(kind, match=words):
        Registry(server.url).list()
    with pytest.raises(kind, match=str(answer[0])):
        Registry(server.url).push(write(tmp_path / "a", docker()))


def test_an_answer_of_another_program_is_told(server: StrictRegistry) -> None:
    server.failing = (200, b"<html>")
    with pytest.raises(Terminal, match="the answer does not come from a registry"):
        Registry(server.url).list()


def test_nobody_there(tmp_path: Path) -> None:
    with StrictRegistry() as gone:
        url = gone.url
    with pytest.raises(Retriable, match="does not answer"):
        Registry(url, timeout=30).push(write(tmp_path / "a", docker()))


@pytest.mark.parametrize("url", ["10.0.0.1:5001", "https://x", "ftp://x", "http://"])
def test_an_address_that_is_none_is_a_mistake_of_the_caller(url: str) -> None:
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        Registry(url)

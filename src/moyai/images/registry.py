"""A registry of container images over HTTP (Docker Registry HTTP API v2): push archives into it, list what it holds.

The cloud's registry is a mirror for every host name: containerd asks a mirror without the host, so an image is put there under
its path alone, and ``example.org/team/app:1.0`` is found as ``team/app:1.0``. Content that the registry has is not sent again.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.parse
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from moyai.core.errors import NotFound, Retriable, Terminal, UsageError
from moyai.images import archive
from moyai.images.archive import Blob, Manifest
from moyai.images.reference import ImageReference
from moyai.images.unpacking import MOST_UNPACKED

_ACCEPT = ", ".join((archive.OCI_MANIFEST, archive.OCI_INDEX, archive.DOCKER_MANIFEST, archive.DOCKER_INDEX))
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Pushed:
    """An image that is now in the registry. ``sent``: bytes that had to be sent for it."""

    reference: ImageReference
    digest: str
    sent: int


@dataclass(frozen=True)
class ListedImage:
    """An image of the registry; ``size`` in bytes of all its parts (of an index: of its first image)."""

    path: str
    tag: str
    digest: str
    size: int


@dataclass(frozen=True)
class _Reply:
    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes


class Registry:
    """``base_url``: ``http://HOST:PORT``. ``timeout`` in seconds, for each wait on the network."""

    def __init__(self, base_url: str, *, timeout: float = 60.0) -> None:
        parts = urllib.parse.urlsplit(base_url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"a registry's address is http://HOST:PORT, not {base_url!r}")
        self._host, self._port, self._timeout = parts.hostname, parts.port or 80, timeout

    def push(
        self,
        file: Path,
        on_progress: Callable[[str], None] = lambda _: None,
        *,
        name: ImageReference | None = None,
        most_unpacked: int = MOST_UNPACKED,
    ) -> list[Pushed]:
        """Put the images of an archive into the registry, under their own names or under ``name``.

        ``most_unpacked``: bytes that the archive, and each of its layers, may unpack to. Raises UsageError if the file is no
        image archive, or if an image has no name and ``name`` is absent; Retriable while the registry does not answer;
        Terminal if the registry refuses an image.
        """
        with archive.read(file, most_unpacked=most_unpacked) as images, self._connection() as connection:
            if name and len(images) > 1:
                raise UsageError(f"{file} holds {len(images)} images: one name cannot be given to all of them")
            if not name and (nameless := [image for image in images if not image.references]):
                raise UsageError(f"{file} holds {len(nameless)} image(s) without a name", hint="give one by --as NAME:TAG")
            done: list[Pushed] = []
            held: dict[str, str] = {}
            for image in images:
                for reference in [name] if name else image.references:
                    on_progress(f"{reference.path}:{reference.tag}")
                    sent = self._push_manifest(
                        connection, reference.path, manifest=image.manifest, tag=reference.tag, held=held
                    )
                    done.append(Pushed(reference, image.manifest.digest, sent))
            return done

    def list(self) -> list[ListedImage]:
        """All images, by path and tag."""
        with self._connection() as connection:
            found: list[ListedImage] = []
            for path in self._pages(connection, "/v2/_catalog?n=100", key="repositories"):
                try:
                    tags = sorted(self._pages(connection, f"/v2/{path}/tags/list", key="tags"))
                except NotFound:  # a repository whose images were all deleted
                    continue
                found += [self._describe(connection, path, tag=tag) for tag in tags]
            return sorted(found, key=lambda item: (item.path, item.tag))

    def delete(self, reference: ImageReference) -> None:
        """Take an image (this digest: all tags of it) out of the registry. Raises NotFound where it is not there."""
        with self._connection() as connection:
            digest = self._describe(connection, reference.path, tag=reference.tag).digest
            self._call(connection, "DELETE", path=f"/v2/{reference.path}/manifests/{digest}", expect=(202, 404))

    # pushing

    def _push_manifest(
        self, connection: http.client.HTTPConnection, path: str, *, manifest: Manifest, tag: str, held: dict[str, str]
    ) -> int:
        """Bytes sent. ``held``: digest → path under which the registry has the blob; this call's blobs are added."""
        sent = sum(
            self._push_manifest(connection, path, manifest=child, tag=child.digest, held=held) for child in manifest.children
        )
        for blob in manifest.blobs:
            sent += self._push_blob(connection, path, blob=blob, elsewhere=held.get(blob.digest))
            held[blob.digest] = path
        headers = {"Content-Type": manifest.media_type}
        self._call(connection, "PUT", path=f"/v2/{path}/manifests/{tag}", body=manifest.content, headers=headers, expect=(201,))
        return sent

    def _push_blob(self, connection: http.client.HTTPConnection, path: str, *, blob: Blob, elsewhere: str | None) -> int:
        known = self._call(connection, "HEAD", path=f"/v2/{path}/blobs/{blob.digest}", expect=(200, 404))
        if known.status == 200:
            return 0
        # a registry takes a blob from another of its paths, or, if it does not do that, begins an upload
        asked = f"?{urllib.parse.urlencode({'mount': blob.digest, 'from': elsewhere})}" if elsewhere else ""
        begun = self._call(connection, "POST", path=f"/v2/{path}/blobs/uploads/{asked}", body=b"", expect=(201, 202))
        if begun.status == 201:
            return 0
        # the registry names the URL to send to; only its path counts, since the connection to the registry is open
        where = urllib.parse.urlsplit(begun.headers["location"])
        query = urllib.parse.urlencode([*urllib.parse.parse_qsl(where.query), ("digest", blob.digest)])
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        with blob.open() as content:
            self._call(connection, "PUT", path=f"{where.path}?{query}", body=_chunks(content), headers=headers, expect=(201,))
        return blob.size

    # listing

    def _describe(self, connection: http.client.HTTPConnection, path: str, *, tag: str) -> ListedImage:
        answer = self._call(connection, "GET", path=f"/v2/{path}/manifests/{tag}", headers={"Accept": _ACCEPT}, expect=(200,))
        digest = answer.headers.get("docker-content-digest", "")
        document = _document(answer)
        if children := document.get("manifests"):
            return ListedImage(path, tag, digest, self._describe(connection, path, tag=children[0]["digest"]).size)
        parts: list[Mapping[str, Any]] = [document.get("config", {}), *document.get("layers", [])]
        return ListedImage(path, tag, digest, sum(int(part.get("size", 0)) for part in parts))

    def _pages(self, connection: http.client.HTTPConnection, path: str, *, key: str) -> Iterator[str]:
        following: str | None = path
        while following:
            answer = self._call(connection, "GET", path=following, expect=(200,))
            yield from cast("list[str]", _document(answer).get(key) or [])
            link = re.match(r'<([^>]+)>\s*;\s*rel="?next', answer.headers.get("link", ""))
            following = link[1] if link else None

    # HTTP

    @contextmanager
    def _connection(self) -> Generator[http.client.HTTPConnection]:
        # http.client knows no proxies: nothing meant for the cloud goes elsewhere
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            yield connection
        finally:
            connection.close()

    def _call(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        *,
        path: str,
        expect: tuple[int, ...],
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _Reply:
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            answer = _Reply(response.status, response.reason, named, response.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Retriable(
                f"the registry at {self._host}:{self._port} does not answer: {error or type(error).__name__}",
                operation=f"{method} {path}",
            ) from error
        if answer.status in expect:
            return answer
        kind = NotFound if answer.status == 404 else Retriable if answer.status >= 500 else Terminal
        raise kind(f"the registry says {answer.status}: {_reason(answer)}", operation=f"{method} {path}")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _document(answer: _Reply) -> dict[str, Any]:
    try:
        document: Any = json.loads(answer.body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Terminal("the answer does not come from a registry", hint="is another program listening there?")
    return cast("dict[str, Any]", document)


def _reason(answer: _Reply) -> str:
    try:
        errors: Any = json.loads(answer.body)["errors"]
        return "; ".join(f"{item.get('code')} {item.get('message')}" for item in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        return answer.body[:200].decode(errors="replace").strip() or answer.reason

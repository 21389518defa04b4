"""The Kubernetes API as the lifecycle uses it from outside: a few plain calls with the administrator's certificate.

Standard library only: `status` and a second `up` should not wait for a client library's import. Always holds: the server is
believed only with the cluster's own authority; every call ends within its time-out; what the API refuses is told in its own
words, as one of ``core.errors``.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml

from moyai.core.errors import Conflict, NotFound, Retriable, Terminal

Json = dict[str, Any]

#: Which disk is, or is to be, at which node.
ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"


class KubeApi:
    """Calls with one cluster's kubeconfig. Each call has a connection of its own: safe from several threads."""

    def __init__(self, kubeconfig: str, *, timeout: float = 10.0) -> None:
        config = yaml.safe_load(kubeconfig)
        cluster = config["clusters"][0]["cluster"]
        user = config["users"][0]["user"]
        self.server = str(cluster["server"])
        host, _, port = self.server.removeprefix("https://").rpartition(":")
        self._host, self._port, self._timeout = host, int(port), timeout
        self._context = ssl.create_default_context(cadata=_text(cluster["certificate-authority-data"]))
        # Python loads client certificates from files only; this one is readable by us alone and gone at once
        with tempfile.TemporaryDirectory(prefix="moyai-") as folder:
            file = Path(folder) / "client.pem"
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as stream:
                stream.write(_text(user["client-certificate-data"]) + _text(user["client-key-data"]))
            self._context.load_cert_chain(file)

    @classmethod
    def from_file(cls, file: Path, *, timeout: float = 10.0) -> KubeApi:
        return cls(file.read_text(encoding="utf-8"), timeout=timeout)

    def ready(self, *, timeout: float = 2.0) -> bool:
        """Whether the API server answers and calls itself ready."""
        try:
            self._call("GET", "/readyz", timeout=timeout)
        except (Retriable, Terminal):
            return False
        return True

    def get(self, path: str, *, timeout: float | None = None) -> Json:
        return _object(self._call("GET", path, timeout=timeout))

    def items(self, path: str, *, timeout: float | None = None) -> list[Json]:
        """The items of a list."""
        return cast("list[Json]", self.get(path, timeout=timeout).get("items") or [])

    def create(self, path: str, body: Mapping[str, Any]) -> Json:
        return _object(self._call("POST", path, body))

    def patch(self, path: str, body: Mapping[str, Any]) -> Json:
        """A strategic merge patch."""
        return _object(self._call("PATCH", path, body, content_type="application/strategic-merge-patch+json"))

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        """What is gone is success."""
        try:
            self._call("DELETE", path, body)
        except NotFound:
            return

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        content_type: str = "application/json",
        timeout: float | None = None,
    ) -> bytes:
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=timeout or self._timeout, context=self._context
        )
        try:
            headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if body is not None else {})
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            data = answer.read()
        except ssl.SSLCertVerificationError as error:
            raise Terminal(f"the API at {self.server} is not this cluster's ({error.verify_message})") from None
        except (OSError, http.client.HTTPException) as error:
            raise Retriable(
                f"the API at {self.server} does not answer ({_reason(error)})", operation=f"{method} {path}"
            ) from None
        finally:
            connection.close()
        if answer.status < 300:
            return data
        message = _message(data) or answer.reason
        kind = {404: NotFound, 409: Conflict, 429: Retriable}.get(
            answer.status, Retriable if answer.status >= 500 else Terminal
        )
        raise kind(f"Kubernetes refused: {message}", operation=f"{method} {path}")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _text(data: str) -> str:
    return base64.b64decode(data).decode("ascii")


def _object(data: bytes) -> Json:
    return cast("Json", json.loads(data))


def _message(data: bytes) -> str:
    try:
        value = json.loads(data)
    except ValueError:
        return data.decode(errors="replace")[:200]
    return str(cast("Json", value).get("message", "")) if isinstance(value, dict) else ""


def condition(item: Mapping[str, Any], kind: str) -> bool:
    """Whether an object's status condition of this kind is True."""
    conditions: list[Json] = item.get("status", {}).get("conditions") or []
    return any(entry["type"] == kind and entry["status"] == "True" for entry in conditions)

"""The synchronous client: a few plain calls with the administrator's certificate, from outside of the cluster.

Standard library only: the commands that a user waits for should not wait for the import of a client library. Always holds: the
server is believed only with the cluster's own authority; every call ends within its time-out; what the API refuses is raised in
its own words, as one of ``core.errors``.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import os
import socket
import ssl
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlencode

from moyai.core.errors import NotFound, Retriable, Terminal
from moyai.core.yamlread import read_one
from moyai.kube import websocket
from moyai.kube.errors import not_json, refusal
from moyai.kube.resources import PODS, Json, Resource

#: OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED.
_EXPIRED = 10


class ProgramFailed(Terminal):
    """A program that was run in a pod did not succeed; the way to it works."""


class Connection(http.client.HTTPSConnection):
    """To a server that is believed by another name than the one that it is reached by."""

    def __init__(self, host: str, port: int, *, name: str, timeout: float, tls: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=timeout, context=tls)
        self._name, self._tls = name, tls

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


class KubeApi:
    """Calls with one cluster's kubeconfig. Each call has a connection of its own: safe from several threads."""

    def __init__(self, kubeconfig: str, *, timeout: float = 10.0) -> None:
        """Terminal for a kubeconfig that does not hold one cluster with certificates."""
        try:
            config = read_one(kubeconfig)
            cluster = config["clusters"][0]["cluster"]
            user = config["users"][0]["user"]
            self.server = str(cluster["server"])
            host, _, port = self.server.removeprefix("https://").rpartition(":")
            self._host, self._port, self._timeout = host, int(port), timeout
            #: The name that the server's certificate must carry.
            self._name = str(cluster.get("tls-server-name") or host)
            self._context = ssl.create_default_context(cadata=_decoded(cluster["certificate-authority-data"]))
            self._log_in(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]))
        except (KeyError, IndexError, TypeError, ValueError, binascii.Error, ssl.SSLError):
            raise Terminal("the cluster's kubeconfig is damaged", hint="`moyai up` writes it again") from None

    def _log_in(self, client: str) -> None:
        """Python loads client certificates from files only; this one is in memory, so that a kill leaves no key on a disk."""
        with os.fdopen(os.memfd_create("client.pem"), "w") as stream:
            stream.write(client)
            stream.flush()
            self._context.load_cert_chain(f"/proc/self/fd/{stream.fileno()}")

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

    def metrics(self, *, timeout: float | None = None) -> str:
        """The metrics of the API server that answers, in Prometheus' text form."""
        return self._call("GET", "/metrics", timeout=timeout).decode(errors="replace")

    def serving_certificate(self, *, timeout: float = 5.0) -> bytes:
        """The certificate that the API server shows, DER. The connection shows no client certificate and does
        not check the server's, so nothing else that it brings is trusted.

        Retriable where nothing answers.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with (
                socket.create_connection((self._host, self._port), timeout=timeout) as stream,
                context.wrap_socket(stream) as shown,
            ):
                found = shown.getpeercert(binary_form=True)
        except OSError as error:
            raise Retriable(f"the API at {self.server} does not answer ({_reason(error)})") from None
        if not found:
            raise Retriable(f"the API at {self.server} shows no certificate")
        return found

    def get(self, resource: Resource, name: str, *, namespace: str | None = None, timeout: float | None = None) -> Json:
        return self._object("GET", resource.path(namespace, name), timeout=timeout)

    def list(
        self, resource: Resource, *, namespace: str | None = None, fields: str = "", timeout: float | None = None
    ) -> list[Json]:
        """All objects, of all namespaces where none is named. ``fields``: a field selector."""
        query = f"?{urlencode({'fieldSelector': fields})}" if fields else ""
        answer = self._object("GET", resource.path(namespace) + query, timeout=timeout)
        return cast("list[Json]", answer.get("items") or [])

    def create(
        self, resource: Resource, body: Mapping[str, Any], *, namespace: str | None = None, timeout: float | None = None
    ) -> Json:
        """Conflict where there is one of that name."""
        return self._object("POST", resource.path(namespace), body=body, timeout=timeout)

    def replace(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        subresource: str = "",
        timeout: float | None = None,
    ) -> Json:
        """Put the whole object in the place of the one of its name. Conflict where that is not of the ``resourceVersion`` that
        ``body`` names."""
        path = resource.path(namespace, body["metadata"]["name"], subresource=subresource)
        return self._object("PUT", path, body=body, timeout=timeout)

    def patch(self, resource: Resource, name: str, *, body: Mapping[str, Any], namespace: str | None = None) -> Json:
        """A strategic merge patch."""
        kind = "application/strategic-merge-patch+json"
        return self._object("PATCH", resource.path(namespace, name), body=body, content_type=kind)

    def apply(self, resource: Resource, body: Mapping[str, Any], *, manager: str) -> Json:
        """Server-side apply: the object becomes what ``body`` says, or is made so. Fields that ``manager`` has applied before
        and that ``body`` leaves out go; those of others are taken over where they differ.

        Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/.
        """
        meta = body["metadata"]
        query = urlencode({"fieldManager": manager, "force": "true"})
        path = f"{resource.path(meta.get('namespace'), meta['name'])}?{query}"
        # JSON is YAML as well
        return self._object("PATCH", path, body=body, content_type="application/apply-patch+yaml")

    def delete(self, resource: Resource, name: str, *, namespace: str | None = None, grace: int | None = None) -> None:
        """``grace``: seconds for a pod to end. An object that is gone is success."""
        try:
            self._call("DELETE", resource.path(namespace, name), body=None if grace is None else {"gracePeriodSeconds": grace})
        except NotFound:
            return

    def evict(self, namespace: str, pod: str) -> None:
        """Ask a pod to leave its node. Retriable while a disruption budget forbids it; NotFound for a pod that is gone."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
        self._call("POST", PODS.path(namespace, pod, subresource="eviction"), body=body)

    def execute(self, namespace: str, pod: str, *, command: Sequence[str], timeout: float, given: bytes = b"") -> str:
        """Run a program in the pod's first container; returns what it printed. ``timeout``: seconds between two of its words.
        ``given``: what it reads from its standard input, which does not end there.

        ProgramFailed where it fails, with the last line that it wrote to its standard error.
        """
        with self._running(namespace, pod, command=command, timeout=timeout, reads=bool(given)) as (stream, sender, operation):
            websocket.write(sender, given)
            # its buffer may hold the first frames already
            printed = websocket.read(stream, sender)
        _succeeded(printed, f"{namespace}/{pod}", operation=operation)
        return printed.output

    def output(self, namespace: str, pod: str, *, command: Sequence[str], timeout: float) -> Iterator[bytes]:
        """As ``execute``, for a program that prints much: what it prints, piece by piece. Iterating raises what ``execute``
        raises; only where it ends without an error was the program content."""
        with self._running(namespace, pod, command=command, timeout=timeout) as (stream, sender, operation):
            passed = websocket.Passed(stream, sender)
            yield from passed
        _succeeded(passed.printed, f"{namespace}/{pod}", operation=operation)

    def send(self, path: str, content: BinaryIO, *, size: int, headers: Mapping[str, str], timeout: float) -> tuple[int, str]:
        """PUT ``size`` bytes to whatever answers at the API's address with a certificate of the API server's.

        Returns its status and its text. ``timeout``: seconds between two of its words, once it has taken the connection.
        Retriable where nothing answers, or not to the end.
        """
        connection = Connection(self._host, self._port, name=self._name, timeout=min(timeout, self._timeout), tls=self._context)
        operation = f"PUT {path}"
        try:
            connection.connect()
            connection.sock.settimeout(timeout)
            connection.request("PUT", path, body=content, headers={**headers, "Content-Length": str(size)})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise Retriable(f"the API at {self.server} does not answer ({_reason(error)})", operation=operation) from None
        finally:
            connection.close()

    @contextmanager
    def _running(
        self, namespace: str, pod: str, *, command: Sequence[str], timeout: float, reads: bool = False
    ) -> Generator[tuple[BinaryIO, socket.socket, str]]:
        """(what comes from the program, what goes to its kubelet, name of the operation)."""
        flows = [*([("stdin", "true")] if reads else []), ("stdout", "true"), ("stderr", "true")]
        query = urlencode([*flows, *(("command", word) for word in command)])
        path = f"{PODS.path(namespace, pod, subresource='exec')}?{query}"
        operation = f"exec in {namespace}/{pod}"
        connection = Connection(self._host, self._port, name=self._name, timeout=timeout, tls=self._context)
        try:
            connection.request("GET", path, headers=dict(websocket.headers()))
            answer = connection.getresponse()
            if answer.status != http.client.SWITCHING_PROTOCOLS:
                raise refusal(answer.status, answer.read() or answer.reason.encode(), operation=operation)
            yield cast("BinaryIO", answer.fp), connection.sock, operation
        except (OSError, http.client.HTTPException, websocket.Broken) as error:
            raise Retriable(f"the API at {self.server} does not answer ({_reason(error)})", operation=operation) from None
        finally:
            connection.close()

    def _object(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        timeout: float | None = None,
    ) -> Json:
        data = self._call(method, path, body=body, content_type=content_type, timeout=timeout)
        try:
            value: object = json.loads(data)
        except ValueError:
            raise not_json(f"{method} {path}") from None
        if not isinstance(value, dict):
            raise not_json(f"{method} {path}")
        return cast("Json", value)

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        timeout: float | None = None,
    ) -> bytes:
        connection = Connection(self._host, self._port, name=self._name, timeout=timeout or self._timeout, tls=self._context)
        operation = f"{method} {path}"
        try:
            headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if body is not None else {})
            connection.request(method, path, body=json.dumps(body) if body is not None else None, headers=headers)
            answer = connection.getresponse()
            data = answer.read()
        except ssl.SSLCertVerificationError as error:
            if error.verify_code == _EXPIRED:
                hint = "`moyai status` shows when each certificate ends, and how it is renewed"
                raise Terminal(f"the certificate of the API at {self.server} has ended", hint=hint) from None
            raise Terminal(f"the API at {self.server} is not this cluster's ({error.verify_message})") from None
        except (OSError, http.client.HTTPException) as error:
            raise Retriable(f"the API at {self.server} does not answer ({_reason(error)})", operation=operation) from None
        finally:
            connection.close()
        if answer.status < 300:
            return data
        raise refusal(answer.status, data or answer.reason.encode(), operation=operation)


def _succeeded(printed: websocket.Printed, pod: str, *, operation: str) -> None:
    """Terminal where the program failed, with its last words."""
    if not printed.succeeded:
        said = printed.errors.strip().splitlines()
        why = said[-1] if said else str(printed.status.get("message") or "it ended without a status")
        raise ProgramFailed(f"a program in pod {pod} failed: {why}", operation=operation)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _decoded(data: str) -> str:
    return base64.b64decode(data).decode("ascii")

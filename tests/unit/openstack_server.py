"""A loopback HTTP server that plays back recorded OpenStack answers: for parsing and error mapping only.

Whether the adapter speaks to an OpenStack is proved against a real one, in tests/cloud.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from moyai.cloud.openstack import ApplicationCredential, OpenStackCloud
from moyai.cloud.openstack.login import Way, open_session
from tests.fakes.clock import FakeClock

PROJECT = "p1"
NETWORK_EXTENSIONS = "/network/v2.0/extensions"
#: Of Neutron: every capability stands on one of them.
EXTENSIONS = ("extraroute", "quotas", "router", "standard-attr-tag")
_SERVICES = {
    "identity": "/v3",
    "compute": "/compute/v2.1",
    "network": "/network/v2.0",
    "image": "/image/v2",
    "block-storage": "/volume/v3",
    "load-balancer": "/lb/v2",
}


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    drop: bool = False


class OpenStackServer:
    """``on(method, path, answer…)`` lays down the answers of a path in order; the last one is given again and again."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.url = f"http://{address[0]}:{address[1]}"
        self.requests: list[Request] = []
        #: Services that the catalog does not name.
        self.without: frozenset[str] = frozenset()
        #: Former types (``volumev3``) under which the catalog names a service once more → its type.
        self.former: dict[str, str] = {}
        #: Of whoever logs in.
        self.roles: tuple[str, ...] = ("load-balancer_member", "member")
        self._answers: dict[tuple[str, str], list[Answer]] = {}
        self._lock = threading.Lock()
        self.clock = FakeClock()
        self.has()

    def has(self, *more: str, without: Collection[str] = ()) -> None:
        """Neutron's extensions: ``EXTENSIONS`` and more, without some."""
        aliases = [one for one in (*EXTENSIONS, *more) if one not in without]
        self.on("GET", NETWORK_EXTENSIONS, {"extensions": [{"alias": one} for one in aliases]})

    def on(self, method: str, path: str, *answers: Answer | dict[str, Any]) -> None:
        self._answers[(method, path)] = [one if isinstance(one, Answer) else Answer(200, one) for one in answers]

    def made(self, method: str, path: str) -> list[Request]:
        """The requests that came for a path, in order."""
        return [one for one in self.requests if (one.method, one.path) == (method, path)]

    def cloud(self, *, interface: str = "public") -> OpenStackCloud:
        """``interface``: the one to take of each service. The catalog has ``public`` alone."""
        credential = ApplicationCredential(auth_url=f"{self.url}/v3", id="c", secret="s")
        way = Way(region="R1", interface=(interface,))
        return OpenStackCloud(open_session(credential=credential, way=way, clock=self.clock))

    def answer(self, request: Request) -> Answer:
        with self._lock:
            self.requests.append(request)
            if (request.method, request.path) == ("POST", "/v3/auth/tokens") and ("POST", request.path) not in self._answers:
                return self.token()
            waiting = self._answers.get((request.method, request.path))
            if not waiting:
                return Answer(404, {"NeutronError": {"message": f"nothing recorded for {request.method} {request.path}"}})
            return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def token(self, volumes: str = _SERVICES["block-storage"]) -> Answer:
        """``volumes``: the path that the catalog has for the service of volumes."""
        services = {**_SERVICES, "block-storage": volumes}
        services |= {kind: services[now] for kind, now in self.former.items()}
        catalog = [
            {
                "type": kind,
                "name": kind,
                "id": kind,
                "endpoints": [{"interface": "public", "region": "R1", "region_id": "R1", "url": self.url + path, "id": kind}],
            }
            for kind, path in services.items()
            if kind not in self.without
        ]
        token = {
            "methods": ["application_credential"],
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "user": {"id": "u1", "name": "u", "domain": {"id": "default", "name": "Default"}},
            "roles": [{"id": name, "name": name} for name in self.roles],
            "project": {"id": PROJECT, "name": "p", "domain": {"id": "default", "name": "Default"}},
            "catalog": catalog,
        }
        return Answer(201, {"token": token}, {"X-Subject-Token": "token"})


@contextmanager
def openstack_server(tls: ssl.SSLContext | None = None) -> Generator[OpenStackServer]:
    """``tls``: how the server speaks TLS; None: it does not."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
            pass

        def _serve(self) -> None:
            split = urlsplit(self.path)
            if self.headers.get("Transfer-Encoding") == "chunked":
                raise AssertionError("a body without length")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = played.answer(Request(self.command, split.path, parse_qs(split.query), dict(self.headers.items()), body))
            if answer.drop:
                self.close_connection = True
                return
            data = b"" if answer.body is None else json.dumps(answer.body).encode()
            if isinstance(answer.body, str):
                data = answer.body.encode()
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - the base class looks for these names

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            # a handshake that fails is the client's to tell
            if not isinstance(sys.exception(), ssl.SSLError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    host, port = server.server_address[:2]
    played = OpenStackServer((str(host), int(port)))
    if tls:
        # the handshake is each connection's own thread's work
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        played.url = played.url.replace("http:", "https:")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield played
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

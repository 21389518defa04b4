"""HTTPS around a front: POST and GET of /api/, one thread a connection."""

from __future__ import annotations

import logging
import socket
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from moyai.nifcloud_front.front import Front, HttpAnswer
from moyai.nifcloud_front.wire.answer import error
from moyai.nifcloud_front.wire.refusal import ApiRefusal, internal
from moyai.nifcloud_front.wire.request import MOST_BYTES

_LOG = logging.getLogger(__name__)
_PATHS = ("/api/", "/api")
#: Seconds that a connection may be silent.
_PATIENCE = 120


class FrontServer(ThreadingHTTPServer):
    """``certificate``: PEM files of the certificate and its key; None: plain HTTP, for tests.

    The handshake happens in the connection's own thread: a client that does not speak holds up nobody.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], front: Front, *, certificate: tuple[Path, Path] | None) -> None:
        super().__init__(address, FrontRequestHandler)
        self.front = front
        self._tls = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
            self._tls.load_cert_chain(*certificate)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.settimeout(_PATIENCE)
        if self._tls is None:
            return connection, address
        return self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """What a client's end of a connection does is no error of ours."""
        _LOG.debug("connection from %s ended", client_address, exc_info=True)


class FrontRequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        # one byte more than is taken: the front says what is wrong
        body = self.rfile.read(min(int(length), MOST_BYTES + 1)) if length.isdecimal() else b""
        if not length.isdecimal() or int(length) > MOST_BYTES:
            self.close_connection = True
        self._serve("POST", body)

    def do_GET(self) -> None:
        self._serve("GET", urlsplit(self.path).query.encode())

    def _serve(self, method: str, body: bytes) -> None:
        path = urlsplit(self.path).path
        if path not in _PATHS:
            refusal = ApiRefusal("Client.InvalidParameter.Value.Path", f"The API is at {_PATHS[0]}.", status=404)
            self._send(HttpAnswer(refusal.status, error(refusal, "")))
            return
        try:
            assert isinstance(self.server, FrontServer)
            answer = self.server.front.answer((method, self.headers.get("Host", ""), path), body)
        except Exception:
            # the log has the reason, the client an answer without it
            _LOG.exception("a request to %s", path)
            answer = HttpAnswer(500, error(internal(), ""))
        if answer.lost:
            self.close_connection = True
            return
        self._send(answer)

    def _send(self, answer: HttpAnswer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", "text/xml;charset=UTF-8")
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the library's name)
        """The front's own log of calls is in its store."""

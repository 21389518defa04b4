"""A member for the load-balancer tests: answers HTTP and UDP on one port with its name and what it saw."""

from __future__ import annotations

import io
import socketserver
import sys
import threading
from pathlib import Path
from typing import cast

NAME = sys.argv[1]
PORT = int(sys.argv[2])
STATUS = Path(sys.argv[3])  # a file with the HTTP status to answer with


class Tcp(socketserver.StreamRequestHandler):
    """One HTTP request a connection; a PROXY header before it is given back too."""

    def handle(self) -> None:
        head: list[str] = []
        stream = cast("io.BufferedReader", self.rfile)
        first = stream.peek(12)[:12]
        if first == b"\r\n\r\n\0\r\nQUIT\n":
            rest = stream.read(16)
            stream.read(int.from_bytes(rest[14:16], "big"))
            head.append("PROXYV2")
        while line := stream.readline().decode(errors="replace").strip():
            head.append(line)
        if not head:
            return
        body = "\n".join([f"name={NAME}", f"peer={self.client_address[0]}", *head]).encode()
        status = STATUS.read_text().strip()
        cookie = "Set-Cookie: JSESSIONID=of-" + NAME + "\r\n" if any("/login" in one for one in head) else ""
        self.wfile.write(
            f"HTTP/1.1 {status} X\r\n{cookie}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
        )


class Udp(socketserver.DatagramRequestHandler):
    """Answers with its name and the client's address."""

    def handle(self) -> None:
        question = self.rfile.read().decode()
        self.wfile.write(f"{NAME} {self.client_address[0]} {question}".encode())


class Server(socketserver.ThreadingTCPServer):
    """Many at once; a restart may take the port at once."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


threading.Thread(target=Server(("", PORT), Tcp).serve_forever, daemon=True).start()
if "udp" in sys.argv:
    threading.Thread(target=socketserver.ThreadingUDPServer(("", PORT), Udp).serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()

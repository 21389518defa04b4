"""etcd's data from a backup, on the machine that a restored cluster begins with. Standard library only; run as root.

receive  waits on the API's port until `moyai restore` sends the data, and puts them where etcd looks for them.
forget   deletes the Node objects of machines that are not there any more, once etcd runs and before an API server does.

To whom the data are handed over is decided by certificates alone: of the API server here, of an administrator there. Both are
signed by the cluster's own authority. A machine that has the data never takes others.

Always holds: etcd's folder has all of the data or nothing; `forget` is never done again after an API server may have begun, for
then the Node objects are those of machines that live. keepalived and load balancers ask for this machine's API server to decide
where the API's address leads: while the machine waits for the data, that address must lead to it. Neither of them shows a
certificate. An administrator does, and is told that no API server answers yet.
Sources: etcd's JSON gateway (/v3/kv), Kubernetes' keys in etcd (/registry/minions for Nodes).
"""

import base64
import hashlib
import http.client
import json
import os
import shutil
import ssl
import sys
import tarfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

ROOT = Path(os.environ.get("MOYAI_ROOT", "/"))
PKI = ROOT / "etc/kubernetes/pki"
ETCD = ROOT / "var/lib/etcd"
STATE = ROOT / "var/lib/moyai"
#: Says which Nodes stay: those of machines that live.
PLACE = ROOT / "etc/moyai/restore.json"
FOUNDED, FORGOTTEN = STATE / "founded", STATE / "forgotten"
PORT = int(os.environ.get("MOYAI_PORT", "6443"))
URL = os.environ.get("MOYAI_ETCD", "https://127.0.0.1:2379")
PATH = "/moyai/etcd"
ADMINISTRATORS = "system:masters"
CHUNK = 1 << 20
#: What Kubernetes keeps of a node beside its Node object.
ALSO = ("/registry/leases/kube-node-lease/", "/registry/csinodes/")
NODES = "/registry/minions/"


# ---- the data


class DataRefused(Exception):
    """Its text: why."""


def place(stream: Any, size: int, *, digest: str) -> None:
    """Takes ``size`` bytes of a packed tar with etcd's folder. DataRefused for what is not whole, OSError of the disk."""
    packed, new = STATE / "etcd.tar.gz", ETCD.with_name("etcd.new")
    found, left = hashlib.sha256(), size
    with packed.open("wb") as target:
        while left:
            piece = stream.read(min(CHUNK, left))
            if not piece:
                raise DataRefused("it ended early")
            found.update(piece)
            target.write(piece)
            left -= len(piece)
    if found.hexdigest() != digest:
        raise DataRefused("it has another hash")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    try:
        with tarfile.open(packed) as archive:
            for one in archive:
                if not (one.isreg() or one.isdir()) or one.name.startswith("/") or ".." in Path(one.name).parts:
                    raise DataRefused(f"it has {one.name!r}")
                archive.extract(one, new)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DataRefused(f"it is no archive: {error}") from None
    if not (new / "member").is_dir():
        raise DataRefused("it has no data of etcd")
    packed.unlink()
    FOUNDED.touch()
    os.sync()
    if ETCD.is_dir():
        ETCD.rmdir()
    new.rename(ETCD)
    os.sync()


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    #: Whoever has it sends the data.
    turn = threading.Lock()

    def setup(self) -> None:
        # in this connection's own thread: one that says nothing keeps no other waiting
        self.request.settimeout(self.timeout)
        self.request.do_handshake()
        super().setup()

    def do_GET(self) -> None:
        if self.path == "/readyz" and not self.shown():
            self.say(200, "waiting for etcd's data")
        elif self.path == PATH and self.may():
            self.say(200, "waiting")
        else:
            self.say(503, "this machine waits for etcd's data")

    def do_PUT(self) -> None:
        if self.path != PATH or not self.may():
            self.say(403, "only an administrator of the cluster may send etcd's data")
            return
        if not self.turn.acquire(blocking=False):
            self.say(409, "somebody sends them already")
            return
        try:
            place(self.rfile, int(self.headers["Content-Length"]), digest=str(self.headers["X-Sha256"]))
        except (DataRefused, TypeError, ValueError) as error:
            self.say(400, str(error))
        except OSError as error:
            self.say(500, str(error))
        else:
            self.say(200, "etcd has its data")
            threading.Thread(target=self.server.shutdown).start()
            return
        finally:
            self.turn.release()
        self.close_connection = True

    def shown(self) -> dict[str, Any]:
        """The client's certificate, empty for none."""
        return cast("dict[str, Any]", cast("ssl.SSLSocket", self.request).getpeercert() or {})

    def may(self) -> bool:
        subject = self.shown().get("subject", ())
        return any(pair == ("organizationName", ADMINISTRATORS) for part in subject for pair in part)

    def say(self, status: int, text: str) -> None:
        data = json.dumps({"said": text}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """keepalived and load balancers ask every second."""


class Listening(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("", PORT), Receiver)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(PKI / "ca.crt"))
        # keepalived and whoever only looks have no certificate
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_cert_chain(PKI / "apiserver.crt", PKI / "apiserver.key")
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that ends early is no error of this machine's."""


def receive() -> int:
    if (ETCD / "member").exists():
        return 0
    STATE.mkdir(parents=True, exist_ok=True)
    say("waiting for etcd's data from `moyai restore`")
    with Listening() as server:
        server.serve_forever(poll_interval=0.1)
    say("etcd has its data")
    return 0


# ---- the Nodes


def call(path: str, **body: Any) -> dict[str, Any]:
    handlers: list[Any] = [urllib.request.ProxyHandler({})]
    if URL.startswith("https:"):
        context = ssl.create_default_context(cafile=PKI / "etcd/ca.crt")
        context.load_cert_chain(PKI / "apiserver-etcd-client.crt", PKI / "apiserver-etcd-client.key")
        handlers.append(urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(URL + path, json.dumps(body).encode())
    with urllib.request.build_opener(*handlers).open(request, timeout=10) as answer:
        return cast("dict[str, Any]", json.loads(answer.read()))


def coded(key: str) -> str:
    return base64.b64encode(key.encode()).decode()


def nodes() -> list[str]:
    # the key behind all that begin so
    end = NODES[:-1] + chr(ord(NODES[-1]) + 1)
    found = call("/v3/kv/range", key=coded(NODES), range_end=coded(end), keys_only=True)
    return [base64.b64decode(one["key"]).decode().removeprefix(NODES) for one in found.get("kvs", ())]


def forget() -> int:
    if FORGOTTEN.exists():
        return 0
    keep = set(json.loads(PLACE.read_text())["keep"])
    while True:
        try:
            gone = sorted(set(nodes()) - keep)
            break
        except (OSError, http.client.HTTPException, ValueError):
            time.sleep(0.3)
    for name in gone:
        # the Node last: what is left of an interrupted run is found by it
        for key in (*(prefix + name for prefix in ALSO), NODES + name):
            call("/v3/kv/deleterange", key=coded(key))
    FORGOTTEN.touch()
    os.sync()
    if gone:
        say(f"forgot the machines that are gone: {', '.join(gone)}")
    return 0


def say(text: str) -> None:
    print(f"moyai: {text}", flush=True)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit({"receive": receive, "forget": forget}[sys.argv[1]]())

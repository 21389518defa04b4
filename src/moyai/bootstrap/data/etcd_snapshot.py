"""A snapshot of the etcd of this machine, to standard output. Standard library only; run in a pod of the machine's network that
sees etcd's certificates.

First a line of JSON: ``size`` of what follows, in bytes; ``revision``, which a majority has confirmed and up to which the
snapshot has everything; ``version`` of etcd. Then the snapshot as etcd sends it: the database, and its SHA-256 at the end.

Always holds: nothing but the first line and the snapshot is printed; an end without an error means that all was printed.
Sources: etcd's JSON gateway (/v3/kv/range, /v3/maintenance/snapshot), clientv3/snapshot.
"""

import base64
import http.client
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, BinaryIO, cast

URL = os.environ.get("MOYAI_ETCD", "https://127.0.0.1:2379")
PKI = Path(os.environ.get("MOYAI_ETCD_PKI", "/etc/kubernetes/pki/etcd"))
HASH = 32


def opened(path: str, **body: Any) -> http.client.HTTPResponse:
    handlers: list[Any] = [urllib.request.ProxyHandler({})]
    if URL.startswith("https:"):
        context = ssl.create_default_context(cafile=PKI / "ca.crt")
        context.load_cert_chain(PKI / "healthcheck-client.crt", PKI / "healthcheck-client.key")
        handlers.append(urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(URL + path, json.dumps(body).encode())
    try:
        return cast("http.client.HTTPResponse", urllib.request.build_opener(*handlers).open(request, timeout=30))
    except urllib.error.HTTPError as error:  # its body has etcd's own reason
        raise OSError(error.read().decode(errors="replace") or str(error)) from None


def asked(path: str, **body: Any) -> dict[str, Any]:
    with opened(path, **body) as answer:
        return cast("dict[str, Any]", json.loads(answer.read()))


def main(out: BinaryIO) -> None:
    # a read that a majority confirms: a member that was cut off from the others waits here, or says so
    revision = int(asked("/v3/kv/range", key="AA==", limit=1)["header"]["revision"])
    version = str(asked("/v3/maintenance/status")["version"])
    size = sent = 0
    with opened("/v3/maintenance/snapshot") as answer:
        for line in answer:
            found = json.loads(line)
            if "error" in found:
                raise OSError(str(found["error"].get("message", found["error"])))
            result = found["result"]
            piece = base64.b64decode(result.get("blob", ""))
            if not size:
                size = len(piece) + int(result.get("remaining_bytes", 0)) + HASH
                out.write(json.dumps({"size": size, "revision": revision, "version": version}).encode() + b"\n")
            out.write(piece)
            sent += len(piece)
    if not size or sent != size:
        raise OSError(f"etcd ended its snapshot after {sent} of {size} bytes")
    out.flush()


if __name__ == "__main__":
    try:
        main(sys.stdout.buffer)
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        sys.exit(f"no snapshot of etcd: {' '.join(str(error).split()) or type(error).__name__}")

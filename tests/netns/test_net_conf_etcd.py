"""Flannel's configuration from a key of a real etcd, with and without TLS."""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moyai.core.errors import Terminal, UsageError
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.lifecycle.flannel_conf import with_net_conf
from moyai.linux.background import background
from moyai.linux.process import run
from moyai.spec.cluster_network import NetworkSpec
from moyai.spec.load import validate
from moyai.toolchain import Toolchain

_HOST = "127.0.79.1"
CONF = json.dumps({"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "VNI": 7}})


@contextmanager
def etcd(folder: Path, *flags: str, scheme: str) -> Generator[str]:
    """Its address."""
    program = Toolchain(default_paths(), Reporter()).ensure(["etcd"])["etcd"].files["etcd"]
    client, peer = f"{scheme}://{_HOST}:2379", f"http://{_HOST}:2380"
    words = [
        *(program, f"--data-dir={folder / 'etcd'}", f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
        *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}", *flags),
    ]
    with background(words, folder / "etcd.log") as running:
        ends = time.monotonic() + 60
        while "ready to serve client requests" not in (folder / "etcd.log").read_text():
            running.check()
            assert time.monotonic() < ends
            time.sleep(0.1)
        yield client


def put(address: str, key: str, *, value: str, context: ssl.SSLContext | None = None) -> None:
    words = {name: base64.b64encode(text.encode()).decode() for name, text in (("key", key), ("value", value))}
    urllib.request.urlopen(f"{address}/v3/kv/put", json.dumps(words).encode(), timeout=10, context=context).close()


def read(**source: Any) -> NetworkSpec:
    document = {"apiVersion": "moyai.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "one"}}
    spec = {"network": {"netConf": {"etcd": source}}}
    return with_net_conf(validate({**document, "spec": spec}, source="a test"), file=None).spec.network


def test_the_key_that_flanneld_reads_is_the_network_of_the_spec(tmp_path: Path) -> None:
    with etcd(tmp_path, scheme="http") as address:
        with pytest.raises(UsageError, match=f"{address} has no key /coreos.com/network/config"):
            read(endpoints=[address])
        put(address, "/coreos.com/network/config", value=CONF)
        put(address, "/other/config", value=CONF.replace("7", "9"))
        # a member that is away is passed over
        found = read(endpoints=["http://127.0.79.2:2379", address])
        assert (str(found.pod_cidr), found.mode, found.vxlan.vni) == ("10.5.0.0/16", "vxlan", 7)
        assert read(endpoints=[address], prefix="/other/").vxlan.vni == 9


def test_certificates_are_checked_and_shown(tmp_path: Path) -> None:
    cert, key = str(tmp_path / "cert"), str(tmp_path / "key")
    subject = ["-subj", "/CN=etcd", "-addext", f"subjectAltName=IP:{_HOST}"]
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-keyout", key, "-out", cert, *subject])  # fmt: skip
    flags = [f"--cert-file={cert}", f"--key-file={key}", f"--trusted-ca-file={cert}", "--client-cert-auth"]
    with etcd(tmp_path, *flags, scheme="https") as address:
        context = ssl.create_default_context(cafile=cert)
        context.load_cert_chain(cert, key)
        put(address, "/coreos.com/network/config", value=CONF, context=context)
        assert read(endpoints=[address], cafile=cert, certfile=cert, keyfile=key).vxlan.vni == 7
        with pytest.raises(Terminal, match="no member answers"):
            read(endpoints=[address], cafile=cert)
        with pytest.raises(Terminal, match="certificate verify failed"):
            read(endpoints=[address], certfile=cert, keyfile=key)
    with pytest.raises(UsageError, match="cafile, certfile or keyfile cannot be used"):
        read(endpoints=["https://127.0.79.1:2379"], cafile=str(tmp_path / "none"))

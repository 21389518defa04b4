"""Flannel's configuration in a spec: its fields, what contradicts it, and what moyai cannot take from it."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from moyai.core.errors import Terminal, UsageError
from moyai.lifecycle.flannel_conf import with_net_conf
from moyai.spec.load import dump, load
from moyai.spec.model import Cluster

VXLAN: dict[str, Any] = {"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "VNI": 7, "Port": 4789, "DirectRouting": True}}


def read(folder: Path, network: dict[str, Any], *, conf: Any = None) -> Cluster:
    """A spec with ``network``, beside the configuration."""
    spec = {"apiVersion": "moyai.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": "one"}, "spec": {"network": network}}
    (folder / "cluster.yaml").write_text(json.dumps(spec))
    (folder / "net-conf.json").write_text(conf if isinstance(conf, str) else json.dumps(conf or VXLAN))
    loaded = load(folder)
    return with_net_conf(loaded.cluster, file=loaded.source)


FILE = {"netConf": {"file": "net-conf.json"}}


def test_the_configuration_is_in_the_fields_that_it_stands_for(tmp_path: Path) -> None:
    made = read(tmp_path, {**FILE, "nodeCIDR": "10.9.0.0/24"})
    network = made.spec.network
    assert (str(network.pod_cidr), network.node_pod_prefix, network.mode) == ("10.5.0.0/16", 24, "vxlan")
    assert (network.vxlan.vni, network.vxlan.port, network.vxlan.direct_routing) == (7, 4789, True)
    assert str(network.node_cidr) == "10.9.0.0/24"
    # the record of the cluster is that of a spec that gives the fields themselves
    fields = {"podCIDR": "10.5.0.0/16", "mode": "vxlan", "vxlan": {"vni": 7, "port": 4789, "directRouting": True}}
    assert dump(made) == dump(read(tmp_path, {**fields, "nodeCIDR": "10.9.0.0/24"}))
    assert "netConf" not in dump(made)["spec"]["network"]


@pytest.mark.parametrize(
    ("network", "length", "prefix"),
    [("10.5.0.0/16", None, 24), ("10.5.0.0/22", None, 24), ("10.5.0.0/23", None, 25), ("10.5.0.0/16", 26, 26)],
)
def test_a_nodes_range_is_as_long_as_flannel_makes_it(tmp_path: Path, network: str, length: int | None, prefix: int) -> None:
    conf = {"Network": network, "Backend": {"Type": "host-gw"}} | ({"SubnetLen": length} if length else {})
    made = read(tmp_path, FILE, conf=conf).spec.network
    assert (made.node_pod_prefix, made.mode) == (prefix, "host-gw")


@pytest.mark.parametrize(
    ("network", "conf", "line"),
    [
        ({"mode": "host-gw"}, VXLAN, "spec.network.mode: host-gw, should be left out, or vxlan as in net-conf.json"),
        (
            {"podCIDR": "10.6.0.0/16"},
            VXLAN,
            "spec.network.podCIDR: 10.6.0.0/16, should be left out, or 10.5.0.0/16 as in net-conf",
        ),
        ({"vxlan": {"vni": 8}}, VXLAN, "spec.network.vxlan.vni: 8, should be left out, or 7 as in net-conf.json"),
        ({}, "{", "net-conf.json is no JSON"),
        ({}, "[" * 60_000, "net-conf.json is no JSON"),
        ({}, " " * 70_000, "net-conf.json: larger than 64 KiB, should be flannel's net-conf.json"),
        ({}, [1], "net-conf.json: should be an object with Network and Backend"),
        ({}, {**VXLAN, "Backend": "vxlan"}, "net-conf.json: Backend: 'vxlan', should be an object with Type"),
        ({}, {"Network": "10.5.0.0/16"}, "net-conf.json: Backend.Type: 'udp', should be one of vxlan, host-gw"),
        ({}, {"Backend": {"Type": "vxlan"}}, "net-conf.json: Network: None, should be a range such as 10.244.0.0/16"),
        ({}, {**VXLAN, "SubnetLen": "24"}, "net-conf.json: SubnetLen: '24', should be a number such as 24"),
        (
            {},
            {"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": "false"}},
            "net-conf.json: Backend.DirectRouting: 'false', should be true or false",
        ),
        ({}, {**VXLAN, "SubnetMin": "10.5.3.0"}, "net-conf.json: SubnetMin: '10.5.3.0', should be left out"),
        (
            {},
            {"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "MTU": 1400}},
            "net-conf.json: Backend.MTU: 1400, should be",
        ),
        ({}, {**VXLAN, "SubnetLen": 12}, "the spec with net-conf.json: spec.network.nodePodPrefix: 12, should be at least 20"),
        (
            {},
            {**VXLAN, "Network": "10.8.0.0/16"},
            "the spec with net-conf.json: spec.network.podCIDR: .*, should be apart from",
        ),
    ],
)
def test_what_contradicts_or_cannot_be_taken_is_one_line(tmp_path: Path, network: Any, conf: Any, line: str) -> None:
    with pytest.raises(UsageError, match=line.replace("[", r"\[")):
        read(tmp_path, {**FILE, **network}, conf=conf)


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ({}, "spec.network.netConf: a mapping, should be a mapping with file or with etcd"),
        ({"etcd": {"endpoints": []}}, "spec.network.netConf.etcd.endpoints: an empty list, should be a list of addresses"),
        (
            {"etcd": {"endpoints": ["10.0.0.5"]}},
            r"spec.network.netConf.etcd.endpoints\[0\]: '10.0.0.5', should be an address as",
        ),
        ({"etcd": {"endpoints": ["http://a"], "keyfile": "k"}}, "spec.network.netConf.etcd.certfile: .* given together"),
        ({"file": "there-is-none.json"}, "there-is-none.json: cannot be read"),
    ],
)
def test_a_source_that_is_none_is_one_line(tmp_path: Path, source: Any, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        read(tmp_path, {"netConf": source})


def test_an_etcd_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(Terminal, match=r"spec.network.netConf.etcd: no member answers, the last one was http://127.0.0.1:1 \("):
        read(tmp_path, {"netConf": {"etcd": {"endpoints": ["http://127.0.0.1:1"]}}})


@contextmanager
def answering(body: bytes) -> Generator[str]:
    """The address of a server that answers every request with ``body``."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b"5", b'"x"', b"null", b'{"kvs": 5}', b'{"kvs": {"a": 1}}', b'{"kvs": [5]}', b'{"kvs": [{}]}',
        b'{"kvs": [{"value": 5}]}', b'{"kvs": [{"value": null}]}', b'{"kvs": [{"value": "@"}]}', b'{"kvs": [{"value": "/79"}]}',
        b"[" * 100_000, b'{"kvs": ' + b"9" * 6000 + b"}", b"\xff", b"",
    ],
)  # fmt: skip
def test_an_etcd_that_answers_otherwise_than_etcd_is_one_line(tmp_path: Path, body: bytes) -> None:
    with answering(body) as address, pytest.raises(Terminal, match=r"\(it does not answer as etcd does\)$"):
        read(tmp_path, {"netConf": {"etcd": {"endpoints": [address]}}})


def test_a_password_in_an_address_is_in_no_message(tmp_path: Path) -> None:
    with pytest.raises(Terminal) as refused:
        read(tmp_path, {"netConf": {"etcd": {"endpoints": ["http://me:hidden@127.0.0.1:1"]}}})
    assert "hidden" not in str(refused.value)

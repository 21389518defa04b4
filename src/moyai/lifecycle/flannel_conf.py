"""Flannel's configuration in place of the spec's own fields: read from a file or an etcd, and written into the spec.

Always holds: what comes out is a spec like any other, without a source, checked as a whole; a field that the spec gives with
another value than the configuration is refused rather than chosen.
Sources: flannel's documentation of net-conf.json; etcd's JSON gateway (/v3/kv/range).
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moyai.core.errors import Terminal, UsageError
from moyai.core.reading import read_text
from moyai.plan.node_network import node_prefix, read_net_conf
from moyai.spec.cluster_network import NetworkSpec
from moyai.spec.load import validate
from moyai.spec.model import Cluster
from moyai.spec.pod_network import EtcdKey

_LIMIT = 65536
_SECONDS = 10.0
_FIELD = "spec.network.netConf"


def with_net_conf(cluster: Cluster, *, file: Path | None) -> Cluster:
    """``cluster`` with the fields that its flannel configuration stands for; as it is where it names none.

    ``file``: the spec's own, whose folder the configuration's path is seen from. Raises UsageError for a configuration that is
    wrong or contradicts the spec, Terminal for an etcd that does not answer.
    """
    network = cluster.spec.network
    if network.net_conf is None:
        return cluster
    if network.net_conf.etcd is not None:
        text = _from_etcd(network.net_conf.etcd)
    else:
        folder = file.parent if file is not None else Path()
        text = read_text(folder / network.net_conf.file, limit=_LIMIT, should="flannel's net-conf.json")
    fields = _fields(text)
    _refuse_contradictions(network, fields)
    whole = cluster.model_dump(mode="json", by_alias=True, exclude_unset=True)
    given = whole["spec"]["network"]
    whole["spec"]["network"] = {**given, **fields, "vxlan": {**given.get("vxlan", {}), **fields["vxlan"]}}
    return validate(whole, source="the spec with net-conf.json")


def _fields(text: str) -> dict[str, Any]:
    """Of ``spec.network``, as a spec has them."""
    conf = read_net_conf(text)
    if conf.mtu:
        raise UsageError(f"net-conf.json: Backend.MTU: {conf.mtu}, should be left out: nodes take that of their own network")
    tunnel = {"vni": conf.vni, "port": conf.port, "directRouting": conf.direct_routing} if conf.backend == "vxlan" else {}
    return {"podCIDR": conf.network, "nodePodPrefix": node_prefix(text), "mode": conf.backend, "vxlan": tunnel}


def _refuse_contradictions(network: NetworkSpec, fields: Mapping[str, Any]) -> None:
    said = network.model_dump(mode="json", by_alias=True, exclude_unset=True)
    pairs = [(name, said.get(name), value) for name, value in fields.items() if name != "vxlan"]
    pairs += [(f"vxlan.{name}", said.get("vxlan", {}).get(name), value) for name, value in fields["vxlan"].items()]
    for name, mine, theirs in pairs:
        if mine is not None and mine != theirs:
            raise UsageError(f"spec.network.{name}: {mine}, should be left out, or {theirs} as in net-conf.json")


def _from_etcd(source: EtcdKey) -> str:
    key = f"{source.prefix.rstrip('/')}/config"
    context = _context(source) if any(one.startswith("https://") for one in source.endpoints) else None
    why = ""
    for endpoint in source.endpoints:
        try:
            found = _value(endpoint.rstrip("/"), key, context=context)
        except (OSError, http.client.HTTPException, ValueError) as error:
            # a name and a password before the host are no part of a message
            scheme, _, place = endpoint.partition("://")
            why = f"{scheme}://{place.rpartition('@')[2]} ({error})"
            continue
        if found is None:
            raise UsageError(f"{_FIELD}.etcd: {endpoint} has no key {key}, should be one with flannel's net-conf.json")
        return found
    raise Terminal(f"{_FIELD}.etcd: no member answers, the last one was {why}")


def _value(endpoint: str, key: str, *, context: ssl.SSLContext | None) -> str | None:
    """Of ``key``, None where etcd has no such key. ValueError for an answer that is none of etcd's."""
    body = json.dumps({"key": base64.b64encode(key.encode()).decode()}).encode()
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
    with opener.open(urllib.request.Request(f"{endpoint}/v3/kv/range", body), timeout=_SECONDS) as answer:
        text = answer.read(2 * _LIMIT)
    try:
        found: Any = json.loads(text)
        entries: Any = found.get("kvs") or []
        return base64.b64decode(entries[0]["value"], validate=True).decode() if entries else None
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        raise ValueError("it does not answer as etcd does") from None


def _context(source: EtcdKey) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=source.cafile or None)
        if source.certfile:
            # with a password, though none is right, nobody is asked for the key's at the terminal
            context.load_cert_chain(source.certfile, source.keyfile, password="")
    except OSError as error:  # ssl's own errors are among them
        raise UsageError(f"{_FIELD}.etcd: cafile, certfile or keyfile cannot be used ({error})") from None
    return context

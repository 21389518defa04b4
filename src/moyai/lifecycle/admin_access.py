"""The way into a cluster that this machine has no record of: a kubeconfig of the user's, or a login to a control plane.

Always holds: nothing is written; of a kubeconfig, one context counts; what a control plane says comes from its own
administrator's access, so no key leaves it but those in the record.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from moyai.core import yamltext
from moyai.core.errors import MoyaiError, Terminal, UsageError
from moyai.core.ids import CLUSTER_RECORD
from moyai.core.reading import read_text
from moyai.core.yamlread import YamlError, read_one
from moyai.kube.quick import KubeApi
from moyai.kube.resources import KUBE_SYSTEM, Json
from moyai.lifecycle.cluster_copy import ClusterCopy, parse_copy, read_copy
from moyai.linux.process import ProcessError, run

_LIMIT = 1 << 20
#: Seconds: of a call to the API; for a login with all that it asks.
_TIMEOUT, _LOGIN_TIMEOUT = 10.0, 120.0
_CONFIG = "/etc/kubernetes/admin.conf"
_HOST = re.compile(r"[A-Za-z0-9_@.:%\[\]-]+")
_WITHOUT_COPY = "`moyai up` on the machine with its record puts it there; or `moyai join` with --file"


@dataclass(frozen=True)
class AdminAccess:
    """``text``: a kubeconfig of one cluster, with everything in it. ``authorities``: certificates, PEM."""

    text: str
    authorities: bytes


def kubeconfig_access(file: Path, context: str) -> AdminAccess:
    """Of the context of this name, else of the current one. UsageError for what is no administrator's kubeconfig."""
    try:
        found: Any = read_one(read_text(file, limit=_LIMIT, should="a kubeconfig"))
    except YamlError as error:
        raise UsageError(f"{file}{error.where}: {error.problem}") from None
    config = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    chosen = _entry(config, "context", name=context) or _entry(config, "context", name=str(config.get("current-context") or ""))
    cluster = _entry(config, "cluster", name=str(chosen.get("cluster") or ""))
    user = _entry(config, "user", name=str(chosen.get("user") or ""))
    if not cluster.get("server") or not user:
        raise UsageError(f"{file} has neither a context {context!r} nor a current one that leads to a cluster")
    authority = _content(cluster, "certificate-authority", file=file)
    certificate, key = (_content(user, name, file=file) for name in ("client-certificate", "client-key"))
    if not authority or not certificate or not key:
        raise UsageError(
            f"{file}: its user does not log in with a certificate, or its cluster has no authority",
            hint="`moyai kubeconfig` on a machine with the record prints one that does",
        )
    server = str(cluster["server"]).rstrip("/")
    server = server if re.search(r":\d+$", server) else f"{server}:443"
    leads: Json = {"server": server, "certificate-authority-data": _encoded(authority)}
    if name := cluster.get("tls-server-name"):
        leads["tls-server-name"] = str(name)
    login = {"client-certificate-data": _encoded(certificate), "client-key-data": _encoded(key)}
    text = yamltext.dump({"clusters": [{"cluster": leads}], "users": [{"user": login}]})
    return AdminAccess(text, authority)


def copy_by_kubeconfig(access: AdminAccess, name: str) -> ClusterCopy:
    """The cluster's copy of its record. UsageError where the API refuses, or there is none."""
    try:
        api = KubeApi(access.text)
        found = read_copy(api, timeout=_TIMEOUT)
    except MoyaiError as error:
        if isinstance(error, Terminal) or "answered 401" in error.message:
            raise UsageError(f"the record of cluster {name} cannot be read: {error.message}") from None
        raise
    if found is None:
        raise UsageError(f"the cluster at {api.server} has no record in it", hint=_WITHOUT_COPY)
    return found


def copy_by_login(host: str, name: str) -> ClusterCopy:
    """The same, read on a control plane that is logged in to by ssh, as the user's own configuration of ssh says."""
    if host.startswith("-") or not _HOST.fullmatch(host):
        raise UsageError(f"--ssh: {host!r} is no host", hint="should be as ssh takes it, for example debian@192.0.2.10")
    words = ["sudo", "kubectl", "--kubeconfig", _CONFIG, "-n", KUBE_SYSTEM, "get", "secret", CLUSTER_RECORD, "-o", "json"]
    try:
        done = run(["ssh", "-o", "ConnectTimeout=10", "--", host, *words], timeout=_LOGIN_TIMEOUT)
    except ProcessError as error:
        if "NotFound" in str(error):
            raise UsageError(f"the cluster of {host} has no record in it", hint=_WITHOUT_COPY) from None
        raise UsageError(f"the record of cluster {name} cannot be read on {host}: {error}") from None
    try:
        found: object = json.loads(done.stdout)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{host} answers with something else than a Secret")
    return parse_copy(cast("Json", found))


def _entry(config: Mapping[str, Any], kind: str, *, name: str) -> dict[str, Any]:
    """What the kubeconfig has under this name, empty where it has nothing."""
    rows: Any = config.get(f"{kind}s")
    for one in cast("list[Any]", rows) if isinstance(rows, list) else []:
        row = cast("dict[str, Any]", one) if isinstance(one, dict) else {}
        if name and row.get("name") == name and isinstance(row.get(kind), dict):
            return cast("dict[str, Any]", row[kind])
    return {}


def _content(entry: Mapping[str, Any], name: str, *, file: Path) -> bytes:
    """The data in the kubeconfig, or of the file that it names as from its own folder."""
    try:
        if data := entry.get(f"{name}-data"):
            return base64.b64decode(str(data), validate=True)
    except ValueError:
        raise UsageError(f"{file}: {name}-data is damaged") from None
    named = entry.get(name)
    return read_text(file.parent / str(named), limit=_LIMIT, should=f"a {name}").encode() if named else b""


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

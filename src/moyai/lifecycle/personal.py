"""A kubeconfig for one person and a few hours, whose certificate the cluster signs by its own API for that.

Always holds: the key is made here and goes nowhere but into the kubeconfig; the request is deleted from the API again; the
certificate gives no rights by itself, only the name and the groups that RBAC knows.
Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from moyai.bootstrap import pki
from moyai.bootstrap.pki import ClientLogin, certificate_request, kubeconfig_of
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, Terminal, UsageError
from moyai.core.waiting import NotYet, until
from moyai.kube.objects.meta import part, stamp, text
from moyai.kube.quick import KubeApi
from moyai.kube.resources import CERTIFICATE_REQUESTS, Json
from moyai.lifecycle.clusters import require_api
from moyai.lifecycle.record import Record
from moyai.plan.rules import API_PORT

#: Kubernetes signs for ten minutes at least, and a controller manager with its defaults for a year at most.
SHORTEST, LONGEST = timedelta(minutes=10), timedelta(days=365)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_LIFE = re.compile(r"([0-9]{1,6})([mhd])")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]{0,62}")
#: Seconds for the controller manager to sign.
_TIMEOUT, _PAUSE = 30.0, 0.2


def parse_life(given: str) -> timedelta:
    """``8h``, ``30m``, ``7d``. UsageError for anything else."""
    found = _LIFE.fullmatch(given)
    life = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not SHORTEST <= life <= LONGEST:
        raise UsageError(f"--for: {given!r}, should be 10m to 365d, for example 8h")
    return life


def personal_kubeconfig(record: Record, user: str, *, groups: Sequence[str], life: timedelta, clock: Clock) -> str:
    """A kubeconfig of this user. UsageError for a name or a group that the cluster gives nobody this way."""
    for option, name in (("--user", user), *(("--group", group) for group in groups)):
        if not _NAME.fullmatch(name):
            raise UsageError(f"{option}: {name!r} is no name", hint="should be letters, digits, '.', '_', '-', '@' or ':'")
        if name.startswith("system:"):
            raise UsageError(
                f"{option}: {name!r} is one of Kubernetes' own", hint="bind a role to the user or to another group"
            )
    key, request = certificate_request(user, groups)
    certificate = _signed(require_api(record), request, user=user, life=life, clock=clock)
    server = f"https://{record.api_address}:{API_PORT}"
    login = ClientLogin(f"{record.name}-{user}", certificate, key)
    authority = pki.ensure(record.folder / "pki", clock).ca
    return kubeconfig_of(authority, login, name=record.name, server=server, context=f"{user}@{record.name}")


def _signed(api: KubeApi, request: bytes, *, user: str, life: timedelta, clock: Clock) -> bytes:
    name = f"moyai-{secrets.token_hex(8)}"
    spec: Json = {
        "request": base64.b64encode(request).decode("ascii"),
        "signerName": "kubernetes.io/kube-apiserver-client",
        "expirationSeconds": int(life.total_seconds()),
        "usages": ["client auth"],
    }
    kind = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
    made = api.create(CERTIFICATE_REQUESTS, {**kind, "metadata": {"name": name}, "spec": spec})
    try:
        approved = {
            "type": "Approved",
            "status": "True",
            "reason": "MoyaiKubeconfig",
            "message": f"`moyai kubeconfig --user {user}`",
            "lastUpdateTime": stamp(clock.now()),
        }
        api.replace(CERTIFICATE_REQUESTS, {**made, "status": {"conditions": [approved]}}, subresource="approval")

        def look() -> str | NotYet:
            certificate = text(part(api.get(CERTIFICATE_REQUESTS, name), "status"), "certificate")
            return certificate or NotYet("the controller manager has not signed the certificate")

        def late(seen: NotYet) -> Terminal:
            return Terminal(f"waited {_TIMEOUT:.0f} s: {seen.missing}", hint="`moyai status` shows the control planes")

        return base64.b64decode(until(look, clock=clock, timeout=_TIMEOUT, pause=_PAUSE, late=late))
    finally:
        with suppress(MoyaiError):  # Kubernetes deletes it after an hour
            api.delete(CERTIFICATE_REQUESTS, name)

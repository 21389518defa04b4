"""Bootstrap tokens: with one of them a machine that is made later may join.

Always holds: a token lives longer than a machine needs to boot and join, and no longer than until all nodes have joined.
Source: the Secret's type and keys are those of Kubernetes' bootstrap token authenticator.
"""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import cast

from moyai.core.clock import Clock
from moyai.core.errors import Conflict
from moyai.core.ids import TOKEN_DESCRIPTION
from moyai.kube.objects import stamp
from moyai.kube.quick import KubeApi
from moyai.kube.resources import KUBE_SYSTEM, SECRETS

TOKEN_LIFE = timedelta(hours=1)
_TYPE, _NAMESPACE, _PREFIX = "bootstrap.kubernetes.io/token", KUBE_SYSTEM, "bootstrap-token-"


def halves(token: str) -> tuple[str, str]:
    """A token's public half, its id, and its secret one; both empty for no token."""
    public, _, secret = token.partition(".")
    return public, secret


def add_token(api: KubeApi, token: str, *, clock: Clock) -> None:
    """Let ``token`` join nodes for an hour, as ``kubeadm token create`` does."""
    public, secret = halves(token)
    expires = stamp(clock.now() + TOKEN_LIFE)
    values = {
        "token-id": public,
        "token-secret": secret,
        "expiration": expires,
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "description": TOKEN_DESCRIPTION,
        "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
    }
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{_PREFIX}{public}"},
        "type": _TYPE,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }
    try:
        api.create(SECRETS, body, namespace=_NAMESPACE)
    except Conflict:
        return  # made by an earlier try


def token_ids(api: KubeApi, *, timeout: float | None = None) -> frozenset[str]:
    """The public halves of the tokens that moyai made and that the cluster still takes."""
    description = base64.b64encode(TOKEN_DESCRIPTION.encode()).decode()
    secrets = api.list(SECRETS, namespace=_NAMESPACE, fields=f"type={_TYPE}", timeout=timeout)
    data = [cast("dict[str, str]", secret.get("data") or {}) for secret in secrets]
    return frozenset(_decoded(one["token-id"]) for one in data if one.get("description") == description and "token-id" in one)


def revoke_tokens(api: KubeApi) -> None:
    """Delete them all; tokens of other people stay."""
    for public in token_ids(api):
        api.delete(SECRETS, f"{_PREFIX}{public}", namespace=_NAMESPACE)


def _decoded(value: str) -> str:
    return base64.b64decode(value).decode(errors="replace")

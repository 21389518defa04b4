"""Bootstrap tokens: with one of them a machine that is made later may join.

Always holds: a token lives longer than a machine needs to boot and join.
"""

from __future__ import annotations

import base64
from datetime import timedelta

from moyai.core.clock import Clock
from moyai.core.errors import Conflict
from moyai.kube.quick import KubeApi
from moyai.kube.resources import SECRETS

TOKEN_LIFE = timedelta(hours=1)


def add_token(api: KubeApi, token: str, *, clock: Clock) -> None:
    """Let ``token`` join nodes for an hour, as ``kubeadm token create`` does."""
    token_id, _, secret = token.partition(".")
    expires = (clock.now() + TOKEN_LIFE).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = {
        "token-id": token_id,
        "token-secret": secret,
        "expiration": expires,
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
    }
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"bootstrap-token-{token_id}"},
        "type": "bootstrap.kubernetes.io/token",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }
    try:
        api.create(SECRETS, body, namespace="kube-system")
    except Conflict:
        return  # made by an earlier try

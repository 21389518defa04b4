"""Signature version 2: who asks, whether the request is unchanged, and whether it is recent.

HMAC of method, host, path and the sorted parameters under the secret key. The host is compared as the client writes it in the
header Host, with the port. The skew that is allowed is the front's choice: the real service's is not known.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from moyai.nifcloud_front.wire.refusal import ApiRefusal, invalid

SKEW = timedelta(minutes=15)
_HASHES = {"HmacSHA256": hashlib.sha256, "HmacSHA1": hashlib.sha1}


def signature(secret: str, target: tuple[str, str, str], *, given: Mapping[str, str]) -> str:
    """``target``: method, host and path. ``given``: all parameters; ``Signature`` itself is left out."""
    text = "&".join(
        f"{quote(key, safe='-_.~')}={quote(value, safe='-_.~')}" for key, value in sorted(given.items()) if key != "Signature"
    )
    method, host, path = target
    digest = _HASHES[given.get("SignatureMethod", "HmacSHA256")]
    made = hmac.new(secret.encode(), f"{method}\n{host}\n{path}\n{text}".encode(), digest).digest()
    return base64.b64encode(made).decode()


def check(given: Mapping[str, str], *, target: tuple[str, str, str], secrets: Mapping[str, str], now: datetime) -> str:
    """The access key that signed. ``secrets``: access key → secret key. Raises ApiRefusal."""
    key = given.get("AccessKeyId", "")
    for name in ("AccessKeyId", "Signature", "SignatureVersion", "SignatureMethod", "Timestamp"):
        if not given.get(name):
            raise invalid(name, f"The parameter {name} is required.", kind="Required")
    if given["SignatureVersion"] != "2":
        raise invalid("SignatureVersion", "The computing API takes signature version 2 alone.")
    if given["SignatureMethod"] not in _HASHES:
        raise invalid("SignatureMethod", f"The signature's method is none of {', '.join(_HASHES)}.")
    if key not in secrets:
        raise ApiRefusal("Client.AuthFailurePermission.AccessKey", "The access key does not exist.", status=403)
    if not hmac.compare_digest(signature(secrets[key], target, given=given), given["Signature"]):
        raise ApiRefusal("Client.AuthFailure", "The signature does not match the request.", status=403)
    try:
        moment = datetime.strptime(given["Timestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise invalid("Timestamp", "The timestamp is not of the form 2006-01-02T15:04:05Z.", kind="Format") from None
    if abs(moment - now) > SKEW:
        raise ApiRefusal("Client.AuthFailure", "The timestamp is too far from the time of the service.", status=403)
    return key

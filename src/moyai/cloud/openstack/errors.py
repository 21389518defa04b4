"""What a failed call to OpenStack means for its caller: one pure translation from status and body to ``core.errors``.

The cloud's own words are kept in the message, on one line. Quotas have an error of their own, because the
services disagree on the status for them: Nova, Octavia and Keystone answer 403, Neutron 409, Cinder 413.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from moyai.core.errors import (
    Conflict,
    CredentialsRefused,
    MoyaiError,
    NotFound,
    PermissionRefused,
    QuotaExceeded,
    Retriable,
    SizeRefused,
    Terminal,
    Unreachable,
)

#: Nova: "Quota exceeded for cores, ram: Requested …"; Neutron: "Quota exceeded for resources: ['port']."; Octavia: "Quota
#: has been met for resources: Load Balancer"; Cinder: "VolumeSizeExceedsAvailableQuota: …" and "Maximum number of
#: volumes allowed (10) exceeded for quota 'volumes'."
_QUOTA = re.compile(
    r"quota (?:exceeded|has been met)|exceeded for quota|exceedsavailablequota|overquota|over ?limit", re.IGNORECASE
)
_QUOTA_NAMES = (
    re.compile(r"for resources: \[?(?P<names>[^\].]+)\]?", re.IGNORECASE),
    re.compile(r"for quota '?(?P<names>[\w, -]+)'?", re.IGNORECASE),
    re.compile(r"quota exceeded for (?P<names>[\w, ]+?):", re.IGNORECASE),
    re.compile(r"exceeds? allowed (?P<names>[\w ]+?) quota", re.IGNORECASE),
)
#: Cinder, of a volume type's extra specs provisioning:min_vol_size and provisioning:max_vol_size.
_TYPE_SIZE = re.compile(
    r"is less than the minimum required size of '(?P<least>\d+)'|is greater than the maximum allowable size of '(?P<most>\d+)'"
)
#: Neutron answers 409 to what no waiting will mend.
_TERMINAL_TYPES = frozenset({"IpAddressGenerationFailure", "OverlappingAllocationPools", "InvalidInput"})

_TEMPORARY = frozenset({408, 423, 425, 429, 500})
#: A proxy's answers for a service that does not answer, and a service's own while it is out of order.
_GONE = frozenset({502, 503, 504})


def error_from_response(
    *,
    status: int,
    body: bytes | str,
    service: str,
    operation: str,
    object_id: str = "",
    request_id: str = "",
) -> MoyaiError:
    """The error for an answer with ``status`` 400 or more.

    ``service`` is the name a user knows (``Neutron``), ``operation`` what was asked ("create port web-1"), ``object_id``
    the object it was asked of. Returned, not raised.
    """
    kind, words = cloud_words(body)
    text = f"{service}: {words}" if words else f"{service} answered {status}"
    error, hint = _classify(status, kind, words=words)
    if error is NotFound and not words:
        text = f"{service} knows no such object"
    made = error(text, hint=hint, operation=operation, object_id=object_id or None, request_id=request_id or None)
    if isinstance(made, SizeRefused) and (bounds := _TYPE_SIZE.search(words)):
        made.least_gb, made.most_gb = (int(one) if one else None for one in bounds.groups())
    return made


def _classify(status: int, kind: str, *, words: str) -> tuple[type[MoyaiError], str | None]:
    if kind == "OverQuota" or (status in (403, 409, 413) and _QUOTA.search(words)):
        names = quota_names(words)
        return (
            QuotaExceeded,
            f"raise the project's quota of {names} or free some" if names else "raise the project's quota or free some",
        )
    if status == 400 and _TYPE_SIZE.search(words):
        return SizeRefused, None
    if status == 404:
        return NotFound, None
    if kind in _TERMINAL_TYPES:
        return Terminal, "no address is left in the subnet" if kind == "IpAddressGenerationFailure" else None
    if status in (409, 412):
        return Conflict, None
    if status == 401:
        return (
            CredentialsRefused,
            "the cloud does not accept these credentials: "
            "check the clouds.yaml entry, or the application credential and its access rules",
        )
    if status == 403:
        return (
            PermissionRefused,
            "the cloud's policy refuses this: the user lacks a role, or the application credential is limited",
        )
    if status == 406:
        return Terminal, "the cloud is older than OpenStack Queens (2018)"
    if status in _GONE:
        return Unreachable, None
    if status in _TEMPORARY or status >= 500:
        return Retriable, None
    return Terminal, None


def quota_names(words: str) -> str:
    """The quotas that a message names (``cores, ram``), empty where it names none."""
    for pattern in _QUOTA_NAMES:
        if found := pattern.search(words):
            return ", ".join(part.strip(" '\"") for part in found["names"].split(","))
    if "volumesizeexceeds" in words.lower():
        return "gigabytes"
    return ""


def cloud_words(body: bytes | str) -> tuple[str, str]:
    """(the error's type where the service names one, its message on one line) of an error body of any service."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    try:
        data: object = json.loads(text)
    except ValueError:
        # HTML of a proxy or of Glance: the text without its tags, short
        return "", _one_line(re.sub(r"<(title|style|head).*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL | re.IGNORECASE))[:300]
    if not isinstance(data, Mapping):
        return "", _one_line(str(data))[:300]
    return _find(cast("Mapping[str, Any]", data))


def _find(data: Mapping[str, Any]) -> tuple[str, str]:
    # {"NeutronError": {"type", "message"}}, {"overLimit": {"message"}}, {"error": {"message"}}, {"faultstring"}, {"message"}
    for inner in data.values():
        if isinstance(inner, Mapping):
            found = _find(cast("Mapping[str, Any]", inner))
            if found[1]:
                return found
        elif isinstance(inner, list) and inner and isinstance(inner[0], Mapping):
            # {"errors": [{"title", "detail"}]}
            found = _find(cast("Mapping[str, Any]", inner[0]))
            if found[1]:
                return found
    for key in ("message", "faultstring", "detail", "description"):
        if isinstance(words := data.get(key), str) and words:
            kind = data.get("type")
            return (kind if isinstance(kind, str) else ""), _one_line(words)
    if isinstance(plain := data.get("NeutronError"), str):
        return "", _one_line(plain)
    return "", ""


def _one_line(text: str) -> str:
    return " ".join(text.split())

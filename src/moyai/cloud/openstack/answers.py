"""What services say beside the objects: the next page, the request's id, when to come again."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import requests


def next_page(page: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The query of the next page: Glance has ``next``, the others ``<key>_links``; Keystone ``links.next``."""
    links = cast("list[dict[str, Any]]", page.get(f"{key}_links") or [])
    href = next((link["href"] for link in links if link.get("rel") == "next"), None) or page.get("next")
    if not href and isinstance(page.get("links"), dict):
        href = page["links"].get("next")
    if not isinstance(href, str) or not href:
        return {}
    return dict(urllib.parse.parse_qs(urllib.parse.urlsplit(href).query))


def request_id(response: requests.Response) -> str:
    """By which the cloud's operator finds the call in the logs; empty where the service gives none."""
    return response.headers.get("x-openstack-request-id") or response.headers.get("x-compute-request-id") or ""


def retry_after(response: requests.Response) -> float:
    """Seconds to wait before the call is repeated, at most 30; 0 where the service names none (RFC 9110, 10.2.3)."""
    try:
        return min(30.0, float(response.headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0

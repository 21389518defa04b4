"""How the user's session reaches the cloud, as values for the parts inside a cluster (``cloud.credentials.Reach``).

Always holds: content, never a path, since the parts run elsewhere; what the parts cannot be given is a note. The environment's
variables count as far as requests heeds them for the cloud's own addresses.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from moyai.cloud.credentials import Reach
from moyai.cloud.openstack.authorities import authorities, read
from moyai.cloud.openstack.session import CloudSession

#: Services that the parts call.
_SERVICES = ("compute", "network", "block-storage", "load-balancer")
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def reach_of(session: CloudSession) -> Reach:
    """Raises UsageError for a file that cannot be read, and for more authorities than user data can hold."""
    keystone = cast("Any", session.keystone)
    proxies, notes = _proxies(session)
    certificate = _client_certificate(session)
    if certificate:
        notes.append("the cloud controller manager and the CSI driver get your client certificate with its key (cert and key)")
    interface = session.interface(None)
    return Reach(
        authorities=authorities(keystone.verify, _addresses(session), cloud=session.name),
        certificate=certificate,
        insecure=keystone.verify is False,
        interface=_joined(interface) if _joined(interface) != "public" else "",
        endpoints=_endpoints(session),
        proxies=proxies,
        notes=tuple(notes),
    )


def _client_certificate(session: CloudSession) -> str:
    cert: Any = cast("Any", session.keystone).cert
    files = [cert] if isinstance(cert, str) else list(cast("Sequence[str]", cert or ()))
    return "\n".join(read(Path(file), "`cert` and `key`").strip() for file in files) + ("\n" if files else "")


def _joined(interface: str | Sequence[str] | None) -> str:
    """As cloud.conf has it: one word, or several in order of preference."""
    words = [interface] if isinstance(interface, str) else interface or []
    return ",".join(word.removesuffix("URL") for word in words)


def _endpoints(session: CloudSession) -> dict[str, str]:
    """What is configured for one service alone: its address, or another interface."""
    general = _joined(session.interface(None))
    alone = (
        service
        for service in _SERVICES
        if session.override(service) or (_joined(session.interface(service)) != general and session.offers(service))
    )
    return {service: session.endpoint(service) for service in alone}


def _addresses(session: CloudSession) -> list[str]:
    """Of the services that the parts call, as far as the cloud has them."""
    found = (session.known_url(service) for service in ("identity", *_SERVICES))
    return [url for url in found if url]


def _proxies(session: CloudSession) -> tuple[dict[str, str], list[str]]:
    """The environment's proxies if one of them leads to the cloud; and notes about those that lead nowhere from a cluster."""
    from requests.utils import get_environ_proxies, select_proxy

    urls = _addresses(session)
    used = {proxy for url in urls if (proxy := select_proxy(url, get_environ_proxies(url, no_proxy=None)))}
    if not used:
        return {}, []
    if here := sorted(_shown(proxy) for proxy in used if _on_this_host(proxy)):
        parts = "the cloud controller manager and the CSI driver"
        note = f"{parts} reach the cloud without your proxy {here[0]}: it is this host's own"
        return {}, [note]
    values = {name: os.environ.get(name.lower()) or os.environ.get(name) for name in _PROXY_VARIABLES}
    return {name: value for name, value in values.items() if value}, []


def _on_this_host(proxy: str) -> bool:
    host = urlsplit(proxy if "://" in proxy else f"//{proxy}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(proxy: str) -> str:
    """Without its user and password."""
    return proxy.rpartition("@")[2]

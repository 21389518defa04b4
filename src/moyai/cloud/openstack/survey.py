"""What an OpenStack says about itself (``cloud.survey``): the login, its services and their versions, Neutron's extensions."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import urlsplit

from moyai.cloud.credentials import Credential
from moyai.cloud.openstack.neutron.networks import NeutronNetworks
from moyai.cloud.openstack.service_types import NAMES, VERSIONS
from moyai.cloud.openstack.session import CONNECT_SECONDS, CloudSession
from moyai.cloud.survey import CloudService, Feature, OwnIdentity, ServerCertificate
from moyai.core.errors import CredentialsRefused, MoyaiError, NotFound, PermissionRefused, Unreachable, one_line

#: Feature → the alias of Neutron's extension. Source: Neutron's API reference, "Extensions".
_EXTENSIONS: Mapping[Feature, str] = {
    Feature.SOURCE_ADDRESSES: "allowed-address-pairs",
    Feature.SINGLE_ROUTES: "extraroute-atomic",
    Feature.PORT_SECURITY: "port-security",
    Feature.TRUNKS: "trunk",
    Feature.NETWORK_MTU: "net-mtu",
}
#: How keystoneauth calls the usual ways to log in.
_METHODS = {"Password": "password", "Token": "token", "TOTP": "one-time password", "MultiFactor": "several factors"}
#: A date in HTTP has whole seconds: half of one is lost on average (RFC 9110, 5.6.7).
_HALF_A_SECOND = timedelta(seconds=0.5)


class OpenStackSurvey:
    """``credentials``: the user's application credentials."""

    def __init__(self, session: CloudSession, credentials: Callable[[], Iterable[Credential]]) -> None:
        self._session = session
        self._credentials = credentials

    def login(self) -> OwnIdentity:
        access = self._session.access()
        user, project = str(access.username), str(access.project_name)
        if identity := access.application_credential_id:
            own: Mapping[str, Any] = access.application_credential
            kind = "restricted" if own.get("restricted", True) else "unrestricted"
            return OwnIdentity(f"{kind} application credential {own['name']}", user, project, self._end(str(identity)))
        kind = type(self._session.keystone.auth).__name__
        method = _METHODS.get(kind, kind)
        # any other login is repeated when the token ends
        return OwnIdentity(method, user, project, access.expires if kind == "Token" else None)

    def _end(self, identity: str) -> datetime | None:
        """None also where the credential may not look at itself."""
        with contextlib.suppress(CredentialsRefused, PermissionRefused):
            return next((one.expires for one in self._credentials() if one.id == identity), None)
        return None

    def services(self) -> list[CloudService]:
        offered = [kind for kind in VERSIONS if self._session.offers(kind)]
        with ThreadPoolExecutor(len(VERSIONS), thread_name_prefix="services") as pool:
            return list(pool.map(self._service, offered))

    def _service(self, kind: str) -> CloudService:
        session = self._session
        try:
            address = session.endpoint(kind)
            return CloudService(NAMES[kind], address, self._versions(kind))
        except MoyaiError as error:
            return CloudService(NAMES[kind], session.known_url(kind), fault=one_line(error))

    def _versions(self, kind: str) -> str:
        """The API's version, with the range of its microversions where it has such."""
        session = self._session
        with session.guard(f"ask {NAMES[kind]} for its versions"):
            found: Any = cast("Any", session.keystone.auth).get_endpoint_data(
                session.keystone,
                service_type=kind,
                interface=session.interface(kind),
                region_name=session.region,
                endpoint_override=session.override(kind),
                discover_versions=True,
                min_version=VERSIONS[kind],
                max_version=f"{VERSIONS[kind].split('.')[0]}.latest",
            )
        if found is None:
            raise Unreachable(f"{NAMES[kind]} does not say its versions")
        least, most = (".".join(map(str, one)) if one else "" for one in (found.min_microversion, found.max_microversion))
        return f"{least} to {most}" if least and most else ".".join(map(str, found.api_version or ()))

    def features(self) -> frozenset[Feature]:
        extensions = self._session.service("network").extensions()
        known = {feature for feature, alias in _EXTENSIONS.items() if alias in extensions}
        # an extension is there for everybody, and a policy may keep it from users
        if Feature.SOURCE_ADDRESSES in known and not NeutronNetworks(self._session).sources_allowed():
            known -= {Feature.SOURCE_ADDRESSES}
        return frozenset(known)

    def free_addresses(self, network_id: str) -> int | None:
        """By Neutron's default policy administrators alone may know it."""
        try:
            path = f"/network-ip-availabilities/{network_id}"
            found = self._session.service("network").get(path, operation="count free addresses", object_id=network_id)
        except (NotFound, PermissionRefused, CredentialsRefused):
            return None
        counts: Mapping[str, Any] = found["network_ip_availability"]
        return int(counts["total_ips"]) - int(counts["used_ips"])

    def clock_ahead(self) -> float | None:
        session, operation = self._session, "read the cloud's clock"
        with session.guard(operation):
            began = session.clock.now()
            url = session.endpoint("identity")
            answer = session.keystone.request(url, "GET", authenticated=False, raise_exc=False)
        middle = began + (session.clock.now() - began) / 2
        try:
            return (parsedate_to_datetime(answer.headers["Date"]) + _HALF_A_SECOND - middle).total_seconds()
        except (KeyError, ValueError):
            return None

    def certificates(self) -> list[ServerCertificate]:
        hosts = sorted(set(self._tls_hosts()))
        with ThreadPoolExecutor(max(len(hosts), 1), thread_name_prefix="certificates") as pool:
            return list(pool.map(_certificate, hosts))

    def _tls_hosts(self) -> Iterator[tuple[str, int]]:
        """Of the addresses that are reached directly: a proxy would have to be asked for the others."""
        from requests.utils import get_environ_proxies, select_proxy

        for kind in VERSIONS:
            url = self._session.known_url(kind)
            parts = urlsplit(url)
            if parts.scheme == "https" and parts.hostname and not select_proxy(url, get_environ_proxies(url, no_proxy=None)):
                yield parts.hostname, parts.port or 443


def _certificate(server: tuple[str, int]) -> ServerCertificate:
    """What is shown to anybody. Its end is all that is read: it is not trusted for anything."""
    from cryptography import x509

    host, port = server
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as shown,
        ):
            found = x509.load_der_x509_certificate(shown.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError) as error:
        raise Unreachable(f"{host}:{port} shows no certificate ({error})") from error
    return ServerCertificate(f"{host}:{port}", found.not_valid_after_utc)

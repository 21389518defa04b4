"""How the adapter talks to OpenStack: one authenticated session for a cloud, one ``Service`` for each of its APIs.

clouds.yaml, application credentials and tokens are openstacksdk's and keystoneauth's; requests are plain JSON over their
session. (Not openstacksdk's Connection and resource proxies: they are not made for many threads, ask more often
than needed, and hide bulk calls, revisions and request ids.) What always holds:

- ``CloudSession`` and ``Service`` may be used from any number of threads. One token is shared, fetched under keystoneauth's
  lock; an API's address is looked up once, under ours; the connection pool of urllib3 is made for threads.
- Every request has a time limit. Calls that can be repeated are repeated after a failed connection and after 429, 502, 503;
  a POST only when the cloud certainly did not receive it, or answered that it did nothing (429, 503).
- Every failure leaves as one of ``core.errors``; no exception of requests or keystoneauth passes.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from moyai.cloud.capabilities import ALTERNATIVES, Capability, CapabilityAbsent
from moyai.cloud.openstack.answers import next_page, request_id, retry_after
from moyai.cloud.openstack.connections import cause, never_sent, unanswered
from moyai.cloud.openstack.errors import error_from_response
from moyai.cloud.openstack.service_types import CAPABILITIES, EXTENSIONS, NAMES, VERSIONS
from moyai.core.backoff import Backoff
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import MoyaiError, Retriable, Terminal, Unreachable
from moyai.core.waiting import NotYet, until

if TYPE_CHECKING:
    import requests
    from keystoneauth1.session import Session as KeystoneSession

#: A JSON object as a service sent it. Only this package sees such; everybody else gets ``cloud.model``.
Json = dict[str, Any]
Params = Mapping[str, str | int | Sequence[str]]

_log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
READ_SECONDS = 120.0
_TRIES = 4
_AGAIN = Backoff(base=0.3, ceiling=5)


class CloudSession:
    """An authenticated way into one cloud. ``name``: what the user calls it. Make it with ``login.open_session``.

    ``interface``: service → which of its addresses in the catalog is used (of None: where a service has no choice of its own).
    ``override``: service → its configured address, whatever the catalog says.
    """

    def __init__(
        self,
        *,
        name: str,
        keystone: KeystoneSession,
        region: str | None,
        interface: Callable[[str | None], str | Sequence[str] | None],
        override: Callable[[str], str | None] = lambda _service: None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.keystone = keystone
        self.region = region
        self.interface = interface
        self.override = override
        self.clock: Clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._services: dict[tuple[str, str, Capability | None], ServiceApi] = {}

    def service(self, service_type: str, *, microversion: str = "", needs: Capability | None = None) -> ServiceApi:
        """The API of ``service_type`` (``compute``, ``network``, ``load-balancer`` …), the same object each time.

        ``needs``: a capability without which each of its calls raises CapabilityAbsent.
        """
        with self._lock:
            return self._services.setdefault(
                (service_type, microversion, needs),
                ServiceApi(self, service_type, microversion=microversion, needs=needs),
            )

    def endpoint(self, service_type: str) -> str:
        """Base address of a service's API, with its version.

        Raises CapabilityAbsent for a service that the cloud does not offer, where a capability stands on it; Terminal for any
        other service that the cloud does not offer, and for an API of none of the versions that the adapter speaks.
        """
        if override := self.override(service_type):
            return override.rstrip("/")
        offered = self.offers(service_type)
        if not offered and (capability := CAPABILITIES.get(service_type)):
            raise CapabilityAbsent(self.name, capability, hint=f"its service catalog does not name {NAMES[service_type]}")
        with self.guard(f"find the {service_type} service"):
            wanted: dict[str, Any] = {
                "service_type": service_type,
                "interface": self.interface(service_type),
                "region_name": self.region,
            }
            if version := VERSIONS.get(service_type):
                wanted |= {"min_version": version, "max_version": f"{version.split('.')[0]}.latest"}
            url = self.keystone.get_endpoint(**wanted) if offered else None
        if url:
            return url.rstrip("/")
        raise Terminal(f"the cloud {self.name} has no {service_type} service", hint="the service catalog names none that fits")

    def capabilities(self) -> frozenset[Capability]:
        """What the service catalog or the configuration names, and what Neutron's extensions are. The catalog comes with the
        token; the extensions are asked for once, here or by the first call that needs them."""
        absent = {capability for service, capability in CAPABILITIES.items() if not self.offers(service)}
        extensions = self.service("network").extensions() if self.offers("network") else frozenset[str]()
        absent |= {capability for capability, extension in EXTENSIONS.items() if extension not in extensions}
        if Capability.DISKS in absent:
            absent.add(Capability.ROOT_VOLUMES)
        return frozenset(set(Capability) - absent - ALTERNATIVES)

    def require(self, capability: Capability) -> None:
        """Raises CapabilityAbsent where Neutron lacks the extension on which the capability stands."""
        extension = EXTENSIONS[capability]
        if extension not in self.service("network").extensions():
            raise CapabilityAbsent(self.name, capability, hint=f"its Neutron has no extension {extension}")

    def access(self) -> Any:
        """What Keystone said at the login (keystoneauth's AccessInfo). Terminal for a login that belongs to no project."""
        with self.guard("authenticate"):
            access = cast("Any", self.keystone.auth).get_access(self.keystone)
        if not access.project_scoped:
            whose = "the system" if access.system_scoped else "a domain" if access.domain_scoped else "no project"
            raise Terminal(
                f"the login of the cloud {self.name} belongs to {whose}, and moyai works in a project",
                hint="name a project in clouds.yaml (project_name with project_domain_name, or project_id)",
            )
        return access

    def catalog_url(self, service_type: str) -> str | None:
        """The address of a service as the catalog has it, None where there is none. Asks the service nothing."""
        catalog = self.access().service_catalog
        asked = {"service_type": service_type, "interface": self.interface(service_type), "region_name": self.region}
        # ValueError: the catalog has two types of the service, and neither has such an address
        with self.guard("read the service catalog"), suppress(ValueError):
            return next((str(url) for url in catalog.get_urls(**asked)), None)
        return None

    def known_url(self, service_type: str) -> str:
        """The configured address of a service, else the catalog's; empty where there is neither. Asks the service nothing."""
        return self.override(service_type) or self.catalog_url(service_type) or ""

    def offers(self, service_type: str) -> bool:
        """Whether the cloud has a service: an address is configured, or the catalog names one. Asks the service nothing."""
        return bool(self.known_url(service_type))

    def catalog_types(self, service_type: str) -> list[str]:
        """The types under which the catalog has a service: its own, and those that it once had. Asks the service nothing."""
        import os_service_types

        known = os_service_types.ServiceTypes().get_all_types(service_type)
        named = {str(service["type"]) for service in self.access().service_catalog.catalog}
        return [kind for kind in known if kind in named] or [service_type]

    def role_names(self) -> list[str]:
        """The roles of the login in the project, implied ones included."""
        return sorted(self.access().role_names)

    def with_credential(self, credential_id: str, secret: str) -> CloudSession:
        """The same cloud, reached the same way, as an application credential sees it."""
        from keystoneauth1 import session as ksa_session
        from keystoneauth1.identity import v3

        auth = v3.ApplicationCredential(
            auth_url=cast("Any", self.keystone.auth).auth_url,
            application_credential_id=credential_id,
            application_credential_secret=secret,
        )
        own = cast("Any", self.keystone)
        keystone = ksa_session.Session(auth=auth, verify=own.verify, cert=own.cert, app_name="moyai")
        cast("Any", keystone).timeout = own.timeout
        return CloudSession(
            name=self.name,
            keystone=keystone,
            region=self.region,
            interface=self.interface,
            override=self.override,
            clock=self.clock,
        )

    def region_name(self) -> str:
        """The region that is configured, else the one that Keystone is in."""
        if self.region:
            return self.region
        regions = [
            str(endpoint.get("region") or endpoint.get("region_id") or "")
            for service in self.access().service_catalog.catalog
            if service["type"] == "identity"
            for endpoint in service["endpoints"]
        ]
        return regions[0] if regions else ""

    def project_id(self) -> str:
        return str(self.access().project_id)

    def user_id(self) -> str:
        return str(self.access().user_id)

    @contextmanager
    def guard(self, operation: str, object_id: str = "") -> Generator[None]:
        """Turn keystoneauth's exceptions into ours."""
        from keystoneauth1 import exceptions as ksa

        try:
            yield
        except MoyaiError:
            raise
        except ksa.HttpError as error:
            response = error.response
            body = response.content if response is not None else error.message
            raise error_from_response(
                status=error.http_status or 500,
                body=body,
                service="Keystone",
                operation=operation,
                object_id=object_id,
                request_id=error.request_id or "",
            ) from error
        except ksa.SSLError as error:
            raise Terminal(
                f"the cloud {self.name} shows a certificate that is not trusted",
                hint="name its CA as `cacert` in clouds.yaml",
                operation=operation,
            ) from error
        except ksa.ConnectTimeout as error:
            raise Unreachable(
                f"the cloud {self.name} did not answer in time", operation=operation, object_id=object_id
            ) from error
        except (ksa.ConnectFailure, ksa.UnknownConnectionError, ksa.DiscoveryFailure) as error:
            raise Unreachable(
                f"the cloud {self.name} cannot be reached ({cause(error)})", operation=operation, object_id=object_id
            ) from error
        except ksa.EndpointNotFound as error:
            raise Terminal(f"the cloud {self.name} lacks a service: {error}", operation=operation) from error
        except ksa.ClientException as error:
            raise Terminal(f"the cloud {self.name} refuses the credentials: {error}", operation=operation) from error


class ServiceApi:
    """One API of the cloud: JSON in, JSON out, errors as ``core.errors``. From ``CloudSession.service``.

    ``operation`` says in words what is asked ("create port web-1"), for the error; ``object_id`` of what.
    """

    def __init__(self, session: CloudSession, service_type: str, *, microversion: str, needs: Capability | None = None) -> None:
        self.session = session
        self._needs = needs
        self.type = service_type
        self.title = NAMES.get(service_type, service_type)
        self._headers = {"Accept": "application/json"}
        if microversion:
            self._headers["OpenStack-API-Version"] = (
                f"{'volume' if service_type == 'block-storage' else service_type} {microversion}"
            )
        # two locks: reading the extensions needs the address meanwhile
        self._base_lock = threading.Lock()
        self._extensions_lock = threading.Lock()
        self._base = ""
        self._extensions: frozenset[str] | None = None

    def get(self, path: str, *, operation: str, object_id: str = "", params: Params | None = None) -> Json:
        return self.request("GET", path, operation=operation, object_id=object_id, params=params)

    def post(self, path: str, body: Json, *, operation: str, object_id: str = "") -> Json:
        return self.request("POST", path, operation=operation, object_id=object_id, body=body)

    def put(
        self, path: str, body: Json, *, operation: str, object_id: str = "", headers: Mapping[str, str] | None = None
    ) -> Json:
        return self.request("PUT", path, operation=operation, object_id=object_id, body=body, headers=headers)

    def delete(self, path: str, *, operation: str, object_id: str = "", params: Params | None = None) -> None:
        self.request("DELETE", path, operation=operation, object_id=object_id, params=params)

    def list(self, path: str, key: str, *, operation: str, params: Params | None = None) -> list[Json]:
        """All objects under ``key``, page after page until the cloud names no next one."""
        found: list[Json] = []
        wanted: Params = dict(params or {})
        while True:
            page = self.get(path, operation=operation, params=wanted)
            objects = cast("list[Json]", page.get(key) or [])
            found += objects
            following = next_page(page, key)
            if not following or not objects:
                return found
            # only the query is taken over: behind a proxy the address in the link is often not ours
            wanted = {**wanted, **following}

    def extensions(self) -> frozenset[str]:
        """Aliases of the API extensions this cloud has; asked once (Neutron)."""
        with self._extensions_lock:
            if self._extensions is None:
                listed = self.list("/extensions", "extensions", operation="list API extensions")
                self._extensions = frozenset(str(one["alias"]) for one in listed)
            return self._extensions

    def upload(self, path: str, stream: BinaryIO, *, operation: str, object_id: str = "", seconds: float) -> None:
        """PUT a file's content as it is, in pieces; ``seconds`` is how long the cloud may take to confirm it."""
        self._send(
            "PUT",
            path,
            operation=operation,
            object_id=object_id,
            attempts=1,
            data=stream,
            timeout=(CONNECT_SECONDS, seconds),
            headers={**self._headers, "Content-Type": "application/octet-stream"},
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        operation: str,
        object_id: str = "",
        body: Json | None = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        """One call; the answer's JSON object, empty where it has none. Raises ``core.errors``."""
        response = self._send(
            method,
            path,
            operation=operation,
            object_id=object_id,
            attempts=_TRIES,
            json=body,
            params=dict(params or {}),
            headers={**self._headers, **(headers or {})},
            timeout=(CONNECT_SECONDS, READ_SECONDS),
        )
        if not response.content:
            return {}
        try:
            data: object = response.json()
        except ValueError as error:
            raise Retriable(
                f"{self.title} answered with something that is not JSON", operation=operation, object_id=object_id
            ) from error
        return cast("Json", data) if isinstance(data, dict) else {}

    def _send(
        self, method: str, path: str, *, operation: str, object_id: str, attempts: int, **request: Any
    ) -> requests.Response:
        return until(
            lambda: self._once(method, path, operation=operation, object_id=object_id, **request),
            clock=self.session.clock,
            timeout=math.inf,
            pause=_AGAIN,
            tries=attempts,
            retry=(),
        )

    def _once(self, method: str, path: str, *, operation: str, object_id: str, **request: Any) -> requests.Response | NotYet:
        """``NotYet`` where the same request may be sent again; its error is raised when there is no further try."""
        try:
            url = self._url() + path
        except Retriable as error:
            # the token or the API's address could not be had: nothing was asked for yet
            return NotYet(error.message, error=error)
        try:
            with self.session.guard(operation, object_id):
                response = self.session.keystone.request(url, method, raise_exc=False, **request)
        except Retriable as error:
            if not (unanswered(error) and (method != "POST" or never_sent(error))):
                raise
            _log.debug("%s: %s", operation, error.message)
            return NotYet(error.message, error=error)
        status = response.status_code
        if status < 400:
            return response
        error = error_from_response(
            status=status,
            body=response.content,
            service=self.title,
            operation=operation,
            object_id=object_id,
            request_id=request_id(response),
        )
        if status in (429, 503) or (status == 502 and method != "POST"):
            return NotYet(error.message, pause=retry_after(response) or None, error=error)
        raise error

    def _url(self) -> str:
        with self._base_lock:
            if not self._base:
                if self._needs:
                    self.session.require(self._needs)
                self._base = self.session.endpoint(self.type)
            return self._base

"""The official SDK, wrapped once: an operation's name and arguments in, its answer out, every failure one of ``core.errors``.

The SDK is botocore with NIFCLOUD's model in it. Importing it changes botocore for the whole process (paths of data, parser,
serializer, signer), so it is imported here alone, at the first call, and never where another part uses botocore. What always
holds:

- The SDK sends each call once. By itself it would repeat calls after a lost reply, and the API has no tokens that make a
  repetition harmless.
- The region is in ``regions.REGIONS`` or the address is given.
- One client serves all threads.

Sources: nifcloud 1.17.0 and botocore 1.37.10 as installed.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from moyai.cloud.nifcloud.access_keys import AccessKey
from moyai.cloud.nifcloud.error_codes import LostReply, NeverSent, error_from_code
from moyai.cloud.nifcloud.regions import endpoint
from moyai.core.errors import MoyaiError, Terminal, UsageError

#: An answer of the API, or a structure in it. Only this package sees such.
Answer = Mapping[str, Any]

CONNECT_SECONDS = 5.0
#: RunInstances and ImportKeyPair answer after their work is accepted, which takes long at times.
READ_SECONDS = 120.0
#: Connections that are kept: as many as threads that call at once.
_POOL = 32


@dataclass(frozen=True)
class ApiPlace:
    """Where a region's API is. ``endpoint_url`` empty: the region's own. ``ca``: file with certificates (PEM) that sign the
    API's, empty: those of the system."""

    region: str
    endpoint_url: str = ""
    ca: str = ""

    @property
    def url(self) -> str:
        # the SDK adds the path
        return self.endpoint_url.rstrip("/").removesuffix("/api") or endpoint(self.region)


class Caller(Protocol):
    """One call, sent once at most."""

    def call(self, operation: str, arguments: Answer, *, object_id: str = "") -> Answer:
        """``operation``: as the API calls it. Raises ``core.errors``, of ``error_codes`` where it matters what became of it."""
        ...


class Sdk:
    """Implements ``Caller``. Nothing is imported and nothing sent before the first call."""

    def __init__(self, place: ApiPlace, key: AccessKey, *, read_seconds: float = READ_SECONDS) -> None:
        self._place, self._key, self._read_seconds = place, key, read_seconds
        self._lock = threading.Lock()
        self._client: Any = None

    @property
    def client(self) -> Any:
        """The SDK's client. Raises UsageError for an unknown region and for a ``ca`` that is no file of certificates."""
        with self._lock:
            if self._client is None:
                self._client = self._open()
            return self._client

    def call(self, operation: str, arguments: Answer, *, object_id: str = "") -> Answer:
        client = self.client
        from botocore import exceptions as boto  # pyright: ignore[reportMissingTypeStubs]
        from botocore import parsers  # pyright: ignore[reportMissingTypeStubs]

        method = getattr(client, _method_name(operation))
        try:
            return cast("Answer", method(**arguments))
        except boto.ClientError as error:
            said = cast("Mapping[str, Any]", error.response)
            told = said.get("Error", {})
            request = said.get("RequestID") or said.get("ResponseMetadata", {}).get("RequestId") or ""
            raise error_from_code(
                str(told.get("Code", "")),
                str(told.get("Message", "")),
                operation=operation,
                object_id=object_id,
                request_id=str(request),
            ) from None
        except boto.SSLError as error:
            hint = "name its CA as `ca`" if "CERTIFICATE_VERIFY" in str(error) else None
            raise self._failed(Terminal, "the API's TLS fails", hint=hint, operation=operation) from None
        except (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError) as error:
            raise self._failed(NeverSent, "the API cannot be reached", operation=operation) from error
        except boto.ParamValidationError as error:
            words = " ".join(str(error).split())
            raise Terminal(f"the API's model refuses the call: {words}", operation=operation, object_id=object_id) from None
        except (boto.BotoCoreError, parsers.ResponseParserError) as error:
            # the connection broke, no answer came in time, or it is not XML
            raise self._failed(LostReply, f"no whole answer came ({type(error).__name__})", operation=operation) from error

    def _failed(self, kind: type[MoyaiError], words: str, *, operation: str, hint: str | None = None) -> MoyaiError:
        return kind(f"NIFCLOUD {self._place.region}: {words} ({self._place.url})", hint=hint, operation=operation)

    def _open(self) -> Any:
        url = self._place.url
        context = _tls(self._place.ca)
        logger = logging.getLogger("botocore")
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
        import nifcloud.session  # pyright: ignore[reportMissingTypeStubs]
        from botocore import exceptions as boto  # pyright: ignore[reportMissingTypeStubs]
        from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]

        config = Config(
            retries={"max_attempts": 0},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=self._read_seconds,
            max_pool_connections=_POOL,
        )
        try:
            client = cast("Any", nifcloud.session.Session()).create_client(
                "computing",
                region_name=self._place.region,
                endpoint_url=url,
                nifcloud_access_key_id=self._key.id,
                nifcloud_secret_access_key=self._key.secret,
                config=config,
            )
        except (boto.BotoCoreError, ValueError) as error:
            # an address that is none; the SDK reads NIFCLOUD_PROFILE and ~/.nifcloud/config, whatever it is given
            raise UsageError(f"NIFCLOUD's SDK cannot be set up: {' '.join(str(error).split())}") from None
        # the SDK gives all its clients one context: a CA of one cloud would be trusted for every other
        client._endpoint.http_session._manager.connection_pool_kw["ssl_context"] = context
        return client


def _tls(ca: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca:
        try:
            context.load_verify_locations(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"ca: {ca} is no file of certificates ({type(error).__name__})") from None
    return context


def _method_name(operation: str) -> str:
    """botocore's name of an operation's method."""
    import botocore  # pyright: ignore[reportMissingTypeStubs]

    return str(cast("Any", botocore).xform_name(operation))

"""The asynchronous client, for what runs inside of a cluster: JSON objects over lightkube's authenticated connection.

lightkube gives configuration (in a pod, or a kubeconfig), certificates, tokens that rotate, and exec plug-ins. Its own watch is
not used: it has no inactivity time-out and hides a 410. Always holds: every call has a time limit; every failure leaves as
one of ``core.errors``; a watch ends by itself, by the server's time-out or, on a dead connection, by silence. A caller may be
cancelled at any moment: what was being sent ends in the background, because httpcore2 loses the socket of a connection that is
cut off in its TLS handshake; ``close`` waits for that.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from moyai.core.errors import MoyaiError, NotFound, Retriable, Terminal, UsageError
from moyai.core.reading import read_mapping
from moyai.kube.errors import not_json, refusal, status_error
from moyai.kube.resources import Json, Resource

if TYPE_CHECKING:
    import httpx2
    from lightkube.config.kubeconfig import SingleConfig

PatchKind = Literal["merge", "strategic", "json"]

_CONTENT_TYPES: Mapping[str, str] = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
}
_CONNECT_SECONDS = 5.0
_CALL_SECONDS = 30.0
#: Objects in one answer: of a whole list, and where each part is let go before the next one. A Node takes some 10 KB as text.
_LIST_SIZE, _PAGE_SIZE = 500, 100


@dataclass(frozen=True)
class WatchEvent:
    """``type``: ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Json


class Kube(Protocol):
    """What moyai asks of a Kubernetes API. ``KubeClient`` does it over the network; tests bring their own."""

    async def list(
        self, resource: Resource, *, namespace: str | None = None, fields: str = "", labels: str = ""
    ) -> tuple[list[Json], str]:
        """All objects (``fields``: a field selector, ``labels``: a label selector), and the resource version of the list."""
        ...

    def pages(self, resource: Resource, *, namespace: str | None = None) -> AsyncIterator[tuple[list[Json], str]]:
        """The same in parts, each with that version: of many objects, only some are in memory as the API has them."""
        ...

    def watch(
        self,
        resource: Resource,
        version: str,
        *,
        namespace: str | None = None,
        server_seconds: int,
        silence_seconds: float,
    ) -> AsyncIterator[WatchEvent]:
        """Changes since ``version``. Ends after ``server_seconds``; raises Retriable after ``silence_seconds`` without a word,
        Gone when ``version`` is too old."""
        ...

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json: ...
    async def create(self, resource: Resource, body: Json, *, namespace: str | None = None) -> Json: ...
    async def replace(self, resource: Resource, name: str, *, body: Json, namespace: str | None = None) -> Json:
        """Conflict when ``metadata.resourceVersion`` is not the newest."""
        ...

    async def patch(
        self,
        resource: Resource,
        name: str,
        *,
        body: Json | list[Json],
        namespace: str | None = None,
        kind: PatchKind = "merge",
        subresource: str = "",
    ) -> Json: ...
    async def delete(
        self, resource: Resource, name: str, *, namespace: str | None = None, uid: str = "", grace: int | None = None
    ) -> None:
        """Of ``uid`` only, where given. ``grace``: seconds for a pod to end; 0: not waited for. What is gone is success."""
        ...


class KubeClient:
    """``Kube`` over the network. Make it in the event loop that uses it, and ``close`` it."""

    def __init__(self, connection: httpx2.AsyncClient) -> None:
        self._http = connection
        self._strays: set[asyncio.Task[None]] = set()

    @classmethod
    def connect(cls, kubeconfig: Path | None = None) -> KubeClient:
        """By ``kubeconfig``, else as a pod of the cluster. Raises UsageError when there is neither."""
        import httpx2
        from lightkube.config import client_adapter

        parameters = client_adapter.ConnectionParams(
            timeout=httpx2.Timeout(_CALL_SECONDS, connect=_CONNECT_SECONDS), trust_env=False
        )
        return cls(client_adapter.AsyncClient(_configuration(kubeconfig), parameters))

    async def close(self) -> None:
        if self._strays:
            await asyncio.wait(self._strays)
        await self._http.aclose()

    async def list(
        self, resource: Resource, *, namespace: str | None = None, fields: str = "", labels: str = ""
    ) -> tuple[list[Json], str]:
        items: list[Json] = []
        version = ""
        async for part, of_list in self._pages(resource, namespace, fields=fields, labels=labels, size=_LIST_SIZE):
            items += part
            version = of_list
        return items, version

    def pages(self, resource: Resource, *, namespace: str | None = None) -> AsyncIterator[tuple[list[Json], str]]:
        return self._pages(resource, namespace, size=_PAGE_SIZE)

    async def _pages(
        self, resource: Resource, namespace: str | None, *, fields: str = "", labels: str = "", size: int
    ) -> AsyncIterator[tuple[list[Json], str]]:
        token = ""
        selectors = {"fieldSelector": fields, "labelSelector": labels}
        chosen = {"limit": str(size), **{name: said for name, said in selectors.items() if said}}
        while True:
            answer = await self._call(
                "GET", resource.path(namespace), params={**chosen, **({"continue": token} if token else {})}
            )
            meta = cast("Json", answer.get("metadata") or {})
            yield cast("list[Json]", answer.get("items") or []), str(meta.get("resourceVersion") or "")
            token = str(meta.get("continue") or "")
            if not token:
                return

    async def watch(
        self,
        resource: Resource,
        version: str,
        *,
        namespace: str | None = None,
        server_seconds: int,
        silence_seconds: float,
    ) -> AsyncIterator[WatchEvent]:
        import httpx2

        path = resource.path(namespace)
        request = self._http.build_request(
            "GET",
            path,
            params={
                "watch": "true",
                "resourceVersion": version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(server_seconds),
            },
            timeout=httpx2.Timeout(_CALL_SECONDS, connect=_CONNECT_SECONDS, read=silence_seconds),
        )
        async with self._guard("watch", path):
            response = await self._send(request)
            try:
                if response.status_code >= 400:
                    await response.aread()
                    raise refusal(response.status_code, response.content, operation=f"watch {path}")
                async for line in response.aiter_lines():
                    if not line.strip():
                        continue
                    event = cast("Json", json.loads(line))
                    found = cast("Json", event["object"])
                    if event["type"] == "ERROR":
                        code, words = int(found.get("code") or 500), str(found.get("message") or "")
                        raise status_error(code, words, operation=f"watch {path}")
                    yield WatchEvent(str(event["type"]), found)
            finally:
                await response.aclose()

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json:
        return await self._call("GET", resource.path(namespace, name))

    async def create(self, resource: Resource, body: Json, *, namespace: str | None = None) -> Json:
        return await self._call("POST", resource.path(namespace), body=body)

    async def replace(self, resource: Resource, name: str, *, body: Json, namespace: str | None = None) -> Json:
        return await self._call("PUT", resource.path(namespace, name), body=body)

    async def patch(
        self,
        resource: Resource,
        name: str,
        *,
        body: Json | list[Json],
        namespace: str | None = None,
        kind: PatchKind = "merge",
        subresource: str = "",
    ) -> Json:
        return await self._call(
            "PATCH", resource.path(namespace, name, subresource=subresource), body=body, content_type=_CONTENT_TYPES[kind]
        )

    async def delete(
        self, resource: Resource, name: str, *, namespace: str | None = None, uid: str = "", grace: int | None = None
    ) -> None:
        options: Json = {"preconditions": {"uid": uid}} if uid else {}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self._call("DELETE", resource.path(namespace, name), body=options)
        except NotFound:
            return

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: Json | list[Json] | None = None,
        content_type: str = "application/json",
        params: Mapping[str, str] | None = None,
    ) -> Json:
        async with self._guard(method, path):
            request = self._http.build_request(
                method,
                path,
                params=dict(params or {}),
                content=None if body is None else json.dumps(body).encode(),
                headers={"Accept": "application/json", "Content-Type": content_type},
            )
            response = await self._send(request)
            try:
                await response.aread()
            finally:
                await response.aclose()
            if response.status_code >= 400:
                raise refusal(response.status_code, response.content, operation=f"{method} {path}")
            return cast("Json", response.json())

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        """The answer's head; the caller reads and closes it."""
        sending = asyncio.ensure_future(self._http.send(request, stream=True))
        try:
            return await asyncio.shield(sending)
        except asyncio.CancelledError:
            stray = asyncio.ensure_future(_put_away(sending))
            self._strays.add(stray)
            stray.add_done_callback(self._strays.discard)
            raise

    @asynccontextmanager
    async def _guard(self, method: str, path: str) -> AsyncGenerator[None]:
        """Turn the connection's exceptions into ours."""
        import httpx2
        from lightkube.core.exceptions import ConfigError

        try:
            yield
        except MoyaiError:
            raise
        except httpx2.TimeoutException as error:
            raise Retriable("the Kubernetes API did not answer in time", operation=f"{method} {path}") from error
        except httpx2.HTTPError as error:
            text = " ".join(str(error).split()) or type(error).__name__
            raise Retriable(f"the Kubernetes API cannot be reached ({text})", operation=f"{method} {path}") from error
        except (ValueError, KeyError) as error:
            raise not_json(f"{method} {path}") from error
        except ConfigError as error:
            raise Terminal(f"the Kubernetes credentials do not work: {error}", operation=f"{method} {path}") from error


async def _put_away(sending: asyncio.Future[httpx2.Response]) -> None:
    """Close the connection of a cancelled call, once it stands or has failed in its own time."""
    with suppress(Exception):
        async with asyncio.timeout(_CONNECT_SECONDS + 1):
            response = await sending
        await response.aclose()


def _configuration(kubeconfig: Path | None) -> SingleConfig:
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.core.exceptions import ConfigError

    try:
        if kubeconfig:
            content = read_mapping(kubeconfig, should="a kubeconfig")
            found = cast("KubeConfig", cast("Any", KubeConfig).from_dict(content, fname=kubeconfig))
        else:
            found = KubeConfig.from_service_account()
        chosen = found.get()
    except (ConfigError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        hint = "run it in a pod with a service account, or name a kubeconfig"
        raise UsageError(f"no way into a Kubernetes cluster ({error})", hint=hint) from error
    if chosen is None:
        raise UsageError("the kubeconfig has no current context")
    return chosen

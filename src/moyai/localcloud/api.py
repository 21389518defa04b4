"""A small client of the cloud's own APIs, for setting it up and asking how it is.

Standard library only, as it is on the way of every start.

One token, taken when it is first needed. Raises Retriable when nothing answers, Terminal when a request is refused.
"""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from typing import Any

from moyai.core.errors import Conflict, MoyaiError, NotFound, Retriable, Terminal
from moyai.localcloud.layout import LocalCloudConfig

# what the host's environment says about proxies is never meant for the cloud
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Api:
    """``request`` speaks to a service by its name in ``config.PORTS``; bodies and answers are JSON."""

    def __init__(self, config: LocalCloudConfig, password: str, *, user: str = "admin", project: str = "admin") -> None:
        self._config = config
        self._auth: dict[str, Any] = {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {"user": {"name": user, "domain": {"id": "default"}, "password": password}},
                },
                "scope": {"project": {"name": project, "domain": {"id": "default"}}},
            }
        }
        self._token = self._project = ""
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        service: str,
        *,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> Any:
        """Returns the answer's JSON, None when it has none."""
        self._authenticate()
        everything = {"X-Auth-Token": self._token, "Content-Type": "application/json", **(headers or {})}
        data = None if body is None else json.dumps(body).encode()
        url = self._config.url(service, path)
        _, text = _send(urllib.request.Request(url, data, everything, method=method), timeout)
        return json.loads(text) if text else None

    def get(self, service: str, path: str, **more: Any) -> Any:
        return self.request("GET", service, path=path, **more)

    def post(self, service: str, path: str, *, body: Any, **more: Any) -> Any:
        return self.request("POST", service, path=path, body=body, **more)

    def project_id(self) -> str:
        """The project that the token is for; Cinder wants it in its paths."""
        self._authenticate()
        return self._project

    def _authenticate(self) -> None:
        with self._lock:
            if self._token:
                return
            url = self._config.url("keystone", "/v3/auth/tokens")
            body = json.dumps(self._auth).encode()
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")
            headers, text = _send(request, 30)
            self._token, self._project = headers["X-Subject-Token"], json.loads(text)["token"]["project"]["id"]


def _send(request: urllib.request.Request, timeout: float) -> tuple[Any, bytes]:
    where = f"{request.get_method()} {request.full_url}"
    try:
        with _OPENER.open(request, timeout=timeout) as answer:
            return answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")[:300]
        kind: type[MoyaiError] = {404: NotFound, 409: Conflict}.get(error.code, Retriable if error.code >= 500 else Terminal)
        raise kind(f"{where} answers {error.code}: {' '.join(text.split())}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Retriable(f"{where} does not answer ({error!r})") from error

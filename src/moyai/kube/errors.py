"""What an answer of the Kubernetes API means for its caller: one decision per status, for both clients.

Always holds: the class says whether the same call may succeed later, and the message holds the API's own words.
"""

from __future__ import annotations

import json
from typing import cast

from moyai.core.errors import Conflict, MoyaiError, NotFound, Retriable, Terminal
from moyai.kube.resources import Json


class Gone(Retriable):
    """The version to watch from, or the rest of a list, is too old (410): list again."""


def status_error(code: int, message: str, *, operation: str) -> MoyaiError:
    """The error for a refusal. ``message``: the API's own words, empty where it has none.

    - 401 is Retriable: a credential may just have been rotated (an API server may not know the key yet that signed a pod's
      token), and an API server that has just started may not have read its authorities. Where the credential is really wrong,
      the wait that repeats the call ends with these words.
    - 403 is Terminal: the API knows the caller and has decided. No right appears by waiting; ``readyz`` is only true once the
      built-in roles are there.
    - 404 is NotFound: deletions treat it as success, and reads as a fact.
    - 408 is Retriable: the server gave up waiting, nothing is wrong with the request.
    - 409 is Conflict: the object exists already, or was changed since it was read. A creator that may repeat itself treats it
      as success; a writer reads again.
    - 410 is Gone: an informer lists again.
    - 429 is Retriable: the server has too much to do, or a disruption budget forbids an eviction for now.
    - 5xx is Retriable: the server, its etcd or a webhook fails; moyai's controllers and waits outlive a restart of any of them.
    - Everything else (400, 405, 415, 422 …) is Terminal: the request itself is wrong.
    """
    kind: type[MoyaiError] = Terminal
    if code == 404:
        kind = NotFound
    elif code == 409:
        kind = Conflict
    elif code == 410:
        kind = Gone
    elif code in (401, 408, 429) or code >= 500:
        kind = Retriable
    words = " ".join(message.split())
    return kind(f"Kubernetes answered {code}{f': {words}' if words else ''}", operation=operation)


def refusal(code: int, body: bytes, *, operation: str) -> MoyaiError:
    """The error for an answer with this body: a ``Status`` object, or the text of a proxy."""
    try:
        value: object = json.loads(body)
    except ValueError:
        return status_error(code, body.decode(errors="replace")[:200], operation=operation)
    message = str(cast("Json", value).get("message") or "") if isinstance(value, dict) else ""
    return status_error(code, message, operation=operation)


def not_json(operation: str) -> Retriable:
    """An answer that was cut off, or is not the API's own."""
    return Retriable("the Kubernetes API sent something that is not JSON", operation=operation)

"""What the user's own login can do for the parts inside a cluster: Keystone's rules for application credentials.

Nothing is made. Sources: Keystone refuses to make credentials for a login by a restricted application credential
(``keystone.api.users``), and gives a credential only roles that its user has in the project. The trustee of a trust without
impersonation has none of them. A policy may refuse anybody: Keystone is asked for a credential with a role that nobody has,
which it refuses in one way or the other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from moyai.cloud.credentials import Credential, OwnLogin
from moyai.cloud.openstack.access_rules import Rule
from moyai.cloud.openstack.errors import error_from_response
from moyai.cloud.openstack.session import CloudSession, Json
from moyai.core.errors import CredentialsRefused

#: A token that ends earlier may end before a cluster is up.
_SHORT = timedelta(minutes=20)
#: No role has this id: Keystone's are 32 hexadecimal digits.
_NO_ROLE = "moyai-asks-whether-credentials-may-be-made"
#: So many calls that a credential lacks are named in a message.
_NAMED = 3


def own_login(
    session: CloudSession,
    *,
    credentials: Callable[[], Iterable[Credential]],
    requests: Callable[[], Iterable[Collection[Rule]]],
    path: str,
) -> OwnLogin:
    """``credentials``: the user's. ``requests``: what all parts together send, each request with the rules of which one lets it
    pass. ``path``: where Keystone makes credentials."""
    access = session.access()
    if access.application_credential_id and access.application_credential.get("restricted", True):
        return _restricted(session, access, credentials=credentials, requests=requests)
    if access.trust_scoped and access.user_id != access.trustor_user_id:
        return OwnLogin(may_issue=False, refusal="it is by a trust without impersonation, which lets nobody make credentials")
    found = _ask_policy(session, path)
    return replace(found, notes=tuple(_notes(session, access))) if found.may_issue else found


def secret_of(session: CloudSession) -> str:
    """The secret of the application credential that the session logs in with; empty where it logs in with none."""
    for method in getattr(session.keystone.auth, "auth_methods", ()):
        if secret := getattr(method, "application_credential_secret", None):
            return str(secret)
    return ""


def _restricted(
    session: CloudSession,
    access: Any,
    *,
    credentials: Callable[[], Iterable[Credential]],
    requests: Callable[[], Iterable[Collection[Rule]]],
) -> OwnLogin:
    own: Mapping[str, Any] = access.application_credential
    name = str(own["name"])
    if not secret_of(session):
        why = f"it is a token of the application credential {name}, which may not make others; a token ends within hours"
        return OwnLogin(may_issue=False, refusal=why)
    given = own.get("access_rules") or ()
    try:
        missing = _uncovered(requests(), given) if given else []
    except CredentialsRefused as error:
        why = f"the access rules of the application credential {name} let nobody see which requests there are: {error.message}"
        return OwnLogin(may_issue=False, refusal=why)
    if missing:
        named = ", ".join(f"{rule.method} {rule.path} of {rule.service}" for rule in missing[:_NAMED])
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        why = f"the access rules of the application credential {name} lack {named}{more}"
        return OwnLogin(may_issue=False, refusal=why)
    ends = _end(str(own["id"]), credentials)
    until = f", and ends on {ends:%Y-%m-%d %H:%M} UTC" if ends else ""
    parts = "the cloud controller manager and the CSI driver"
    note = (
        f"application credential {name} may not make others, so {parts} log in with it: "
        f"the cluster needs it as long as it lives{until}"
    )
    return OwnLogin(may_issue=False, given=name, notes=(note, *_lacking_roles(session, name)))


def _end(identity: str, credentials: Callable[[], Iterable[Credential]]) -> datetime | None:
    """When a credential ends; None also where its access rules do not let it look at itself."""
    try:
        return next((one.expires for one in credentials() if one.id == identity), None)
    except CredentialsRefused:
        return None


def _lacking_roles(session: CloudSession, name: str) -> Iterable[str]:
    enough = {"load-balancer_member", "load-balancer_admin", "admin"}
    if session.offers("load-balancer") and not enough & set(session.role_names()):
        lacks = "has no role load-balancer_member"
        yield f"application credential {name} {lacks}: where Octavia asks for it, Services of type LoadBalancer stay pending"


def _uncovered(requests: Iterable[Collection[Rule]], given: Sequence[Mapping[str, str]]) -> list[Rule]:
    """The requests that a credential with these rules may not send, each by one of its rules."""
    patterns = [(one["service"], one["method"], _pattern(one["path"])) for one in given]

    def covered(rule: Rule) -> bool:
        path = rule.path.replace("*", "x")
        return any(
            (service, method) == (rule.service, rule.method) and pattern.fullmatch(path)
            for service, method, pattern in patterns
        )

    return [next(iter(rules)) for rules in requests if not any(map(covered, rules))]


def _pattern(path: str) -> re.Pattern[str]:
    """A rule's path as Keystone's middleware takes it: ``*`` and ``{name}`` are one part, ``**`` is any number of parts."""
    parts = re.split(r"(\*\*|\*|\{[^}]*\})", path)
    return re.compile(
        "".join(".*" if part == "**" else "[^/]+" if number % 2 else re.escape(part) for number, part in enumerate(parts))
    )


def _ask_policy(session: CloudSession, path: str) -> OwnLogin:
    wanted: Json = {"name": _NO_ROLE, "unrestricted": False, "roles": [{"id": _NO_ROLE}]}
    operation = "ask whether application credentials may be made"
    with session.guard(operation):
        url = session.endpoint("identity") + path
        answer = session.keystone.request(url, "POST", json={"application_credential": wanted}, raise_exc=False)
    if answer.status_code == 403:
        return OwnLogin(may_issue=False, refusal="Keystone's policy lets this user make no application credentials")
    if answer.status_code < 300:
        identity = str(answer.json()["application_credential"]["id"])
        session.service("identity").delete(f"{path}/{identity}", operation="delete application credential", object_id=identity)
    elif answer.status_code == 401 or answer.status_code >= 500:
        raise error_from_response(status=answer.status_code, body=answer.content, service="Keystone", operation=operation)
    # everything else is about the role
    return OwnLogin()


def _notes(session: CloudSession, access: Any) -> Iterable[str]:
    ends = cast("datetime", access.expires).astimezone(UTC)
    methods = access._data["token"].get("methods", ())
    if "token" in methods and ends - session.clock.now() < _SHORT:
        yield (
            f"your login is a token that ends at {ends:%H:%M} UTC: a run that is not done by then ends with an error, "
            "and `moyai up` with a new token goes on from there"
        )
    if access.is_federated:
        yield (
            "your login is federated: the cluster's credentials hold as long as Keystone knows you as a member of your groups, "
            "which a new login renews"
        )

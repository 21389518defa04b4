"""Keystone: application credentials (``cloud.capabilities.Credentials``), the project and the catalog (``Account``)."""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import cast

from moyai.cloud.credentials import Credential, IssuedCredential, OwnLogin, Reach, Use
from moyai.cloud.openstack import access_rules
from moyai.cloud.openstack.access_rules import PROBES, Rule, RuleFacts
from moyai.cloud.openstack.own_login import own_login, secret_of
from moyai.cloud.openstack.reach import reach_of
from moyai.cloud.openstack.session import CloudSession, Json
from moyai.core.backoff import Backoff
from moyai.core.errors import NotFound, Retriable, Terminal, Unreachable
from moyai.core.waiting import NotYet, until

_ROLES: Mapping[Use, tuple[str, ...]] = {Use.CONTROLLERS: ("member", "load-balancer_member"), Use.VOLUMES: ("member",)}
_TRIES = 4
_AGAIN = Backoff(base=0.1, ceiling=1)


class KeystoneAccount:
    def __init__(self, session: CloudSession) -> None:
        self._session = session

    def project_id(self) -> str:
        return self._session.project_id()

    def region(self) -> str:
        return self._session.region_name()

    def login_url(self) -> str | None:
        return self._session.known_url("identity") or None

    def reach(self) -> Reach:
        return reach_of(self._session)

    def image_mirror(self) -> str | None:
        return self._session.catalog_url("container-registry")


class KeystoneCredentials:
    def __init__(self, session: CloudSession) -> None:
        self._session = session
        self._keystone = session.service("identity")

    def own_login(self) -> OwnLogin:
        return own_login(
            self._session,
            credentials=lambda: self.credentials(name_prefix=""),
            requests=lambda: [rules for use in Use for rules in access_rules.requests_of(use, self._rule_facts())],
            path=self._path(),
        )

    def own_credential(self) -> IssuedCredential:
        """Its id and its secret, as the user's configuration has it."""
        identity, secret = self._session.access().application_credential_id, secret_of(self._session)
        if not (identity and secret):
            raise Terminal(f"the login of the cloud {self._session.name} is no application credential")
        return IssuedCredential(str(identity), secret)

    def create_credential(self, *, name: str, use: Use, description: str) -> IssuedCredential:
        """Limited by roles and by access rules, as far as the cloud lets itself be limited."""
        roles, notes = self._roles(name, use)
        rules = self._rules(use)
        made = self._create(name, description, roles=roles, rules=rules)
        if not made.get("access_rules"):
            notes.append(f"{_may_call_all(name)}: this cloud's Keystone knows no access rules (OpenStack Train has them)")
        elif blind := self._services_without_rules(made, {rule.service for rule in rules}):
            # such a service refuses whatever comes with a limited credential
            self.delete_credential(str(made["id"]))
            made = self._create(name, description, roles=roles, rules=[])
            named = ", ".join(sorted(blind))
            notes.append(
                f"{_may_call_all(name)}: no access rules are checked by {named} "
                "(the cloud's operator sets service_type in section [keystone_authtoken] of the service)"
            )
        return IssuedCredential(str(made["id"]), str(made["secret"]), tuple(notes))

    def _create(self, name: str, description: str, *, roles: Sequence[str], rules: Sequence[Rule]) -> Json:
        wanted: Json = {
            "name": name,
            "description": description,
            "unrestricted": False,
            "roles": [{"name": role} for role in roles],
        }
        if rules:
            wanted["access_rules"] = [rule._asdict() for rule in rules]

        def create() -> Json | NotYet:
            operation = f"create application credential {name}"
            try:
                return self._keystone.post(self._path(), {"application_credential": wanted}, operation=operation)
            except Unreachable:
                raise  # the credential may have been made, and its secret is lost
            except Retriable as error:
                return NotYet(error.message, error=error)

        # Two credentials made at the same time may each bring the same new rule. Keystone refuses the second, and then has the
        # rule; or its database ends one of the two as a deadlock, undoes it, and Keystone answers 500. No name is there twice:
        # Keystone refuses it.
        made = until(create, clock=self._session.clock, timeout=math.inf, pause=_AGAIN, tries=_TRIES, retry=())
        return cast("Json", made["application_credential"])

    def _roles(self, name: str, use: Use) -> tuple[list[str], list[str]]:
        """The roles that a use needs; where the user lacks one of them all that the user has, and a note that says so."""
        own = self._session.role_names()
        missing = [role for role in _ROLES[use] if role not in own]
        if not missing:
            return list(_ROLES[use]), []
        note = f"application credential {name} has all your roles ({', '.join(own)}): you have no role {', '.join(missing)}"
        return own, [note]

    def _rules(self, use: Use) -> list[Rule]:
        return access_rules.rules_of(use, self._rule_facts())

    def _rule_facts(self) -> RuleFacts:
        session = self._session
        return RuleFacts(
            offered={service for service in PROBES if session.offers(service)},
            atomic_routes="extraroute-atomic" in session.service("network").extensions(),
            base=lambda service: urllib.parse.urlsplit(session.endpoint(service)).path,
            types=session.catalog_types,
        )

    def _services_without_rules(self, made: Json, types: Collection[str]) -> set[str]:
        """Services that refuse the credential what its rules allow."""
        limited = self._session.with_credential(str(made["id"]), str(made["secret"]))
        with limited.guard("try the application credential", str(made["id"])):
            limited.keystone.get_token()
        probed = [service for service in PROBES if set(types) & set(self._session.catalog_types(service))]

        def refused(service: str) -> bool:
            with limited.guard("try the application credential", str(made["id"])):
                url = f"{self._session.endpoint(service)}{PROBES[service]}?limit=1"
                return bool(limited.keystone.request(url, "GET", raise_exc=False).status_code == 401)

        with ThreadPoolExecutor(len(PROBES), thread_name_prefix="probe") as pool:
            return {service for service, blind in zip(probed, pool.map(refused, probed), strict=True) if blind}

    def credentials(self, *, name_prefix: str) -> list[Credential]:
        rows = self._keystone.list(self._path(), "application_credentials", operation="list application credentials")
        owner = str(self._session.access().username or "")
        return [_credential(row, owner) for row in rows if row["name"].startswith(name_prefix)]

    def delete_credential(self, credential_id: str) -> None:
        try:
            self._keystone.delete(
                f"{self._path()}/{credential_id}", operation="delete application credential", object_id=credential_id
            )
        except NotFound:
            return

    def _path(self) -> str:
        return f"/users/{self._session.user_id()}/application_credentials"


def _may_call_all(name: str) -> str:
    return f"application credential {name} may call all that its roles allow"


def _credential(row: Json, owner: str) -> Credential:
    ends = row.get("expires_at")
    # Keystone's times are UTC, and do not say so
    expires = datetime.fromisoformat(str(ends).rstrip("Z")).replace(tzinfo=UTC) if ends else None
    return Credential(str(row["id"]), str(row["name"]), limited=bool(row.get("access_rules")), expires=expires, owner=owner)

"""The project, where one logs in, and application credentials, as Keystone has them."""

from __future__ import annotations

from moyai.cloud.credentials import CALLS, Credential, IssuedCredential, OwnLogin, Reach, Use
from moyai.cloud.memory.session import MemoryApi, api
from moyai.cloud.memory.store import StoredCredential
from moyai.core.errors import Conflict, Terminal


class MemoryAccount(MemoryApi):
    service = "account"

    #: Documentation's addresses (RFC 5737): nothing answers there.
    login = "http://192.0.2.1:5000/v3"
    mirror: str | None = None
    way = Reach()

    @api
    def project_id(self) -> str:
        return "00000000000000000000000000000001"

    @api
    def region(self) -> str:
        return "RegionOne"

    @api
    def login_url(self) -> str | None:
        return self.login

    @api
    def reach(self) -> Reach:
        return self.way

    @api
    def image_mirror(self) -> str | None:
        return self.mirror


class MemoryCredentials(MemoryApi):
    service = "credentials"

    @api
    def own_login(self) -> OwnLogin:
        found = self._session.own()
        if found is None or found[1].unrestricted:
            return OwnLogin()
        name, own = found
        missing = sorted(call for use in Use for call in CALLS[use] if own.use and call not in CALLS[own.use])
        if missing:
            return OwnLogin(may_issue=False, refusal=f"application credential {name} may not call {', '.join(missing)}")
        return OwnLogin(may_issue=False, given=name)

    @api
    def own_credential(self) -> IssuedCredential:
        found = self._session.own()
        if found is None:
            raise self._refused(Terminal, "the login is no application credential")
        return IssuedCredential(found[1].id, found[1].secret)

    @api
    def create_credential(self, *, name: str, use: Use, description: str) -> IssuedCredential:
        store = self._store
        own = self._session.own()
        if own is not None and not own[1].unrestricted:
            raise self._refused(Terminal, "the cloud's policy refuses this: an application credential may not make others")
        if name in store.credentials:
            raise self._refused(Conflict, f"an application credential {name} exists already")
        with self._change():
            made = store.new_id()
            store.credentials[name] = StoredCredential(made, f"secret-of-{made}", use)
            return IssuedCredential(made, store.credentials[name].secret)

    @api
    def credentials(self, *, name_prefix: str) -> list[Credential]:
        found = self._store.credentials.items()
        return [
            Credential(one.id, name, limited=one.use is not None, expires=one.expires, owner="tester")
            for name, one in found
            if name.startswith(name_prefix)
        ]

    @api
    def delete_credential(self, credential_id: str) -> None:
        credentials = self._store.credentials
        if name := next((name for name, one in credentials.items() if one.id == credential_id), ""):
            with self._change():
                del credentials[name]

"""Every kind of login at a real Keystone: what moyai says beforehand that it can do is what Keystone then lets it do."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.openstack import OpenStackCloud, connect
from moyai.cloud.openstack.session import CloudSession
from moyai.core.errors import MoyaiError, Terminal
from moyai.core.ids import new_uid

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Owner:
    """The user of the test's cloud, who makes logins of other kinds and takes them away again."""

    session: CloudSession
    folder: Path
    region: str
    undo: ExitStack

    @property
    def url(self) -> str:
        return self.session.endpoint("identity")

    @property
    def own(self) -> str:
        return f"/users/{self.session.user_id()}/application_credentials"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return self.session.service("identity").request(method, path, operation="test", body=body)

    def credential(self, **more: Any) -> Entry:
        wanted = {"name": f"test-{new_uid()}", **more}
        made = self.call("POST", self.own, {"application_credential": wanted})["application_credential"]
        self.undo.callback(self.call, "DELETE", f"{self.own}/{made['id']}")
        auth = {"application_credential_id": made["id"], "application_credential_secret": made["secret"]}
        return {"auth_type": "v3applicationcredential", "auth": {"auth_url": self.url, **auth}}

    def log_in(self, entry: Entry, monkeypatch: pytest.MonkeyPatch) -> OpenStackCloud:
        file = self.folder / "clouds.yaml"
        # JSON is YAML
        file.write_text(json.dumps({"clouds": {"one": {"region_name": self.region, **entry}}}))
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(file))
        return connect("one")


@pytest.fixture
def owner(cloud_name: str, tmp_path: Path) -> Generator[Owner]:
    cloud = connect(cloud_name)
    with ExitStack() as undo:
        yield Owner(cloud.session, tmp_path, cloud.account.region(), undo)


def _token(owner: Owner) -> Entry:
    token = owner.session.keystone.get_token()
    auth = {"auth_url": owner.url, "token": token, "project_id": owner.session.project_id()}
    return {"auth_type": "v3token", "auth": auth}


def _without_version(owner: Owner) -> Entry:
    entry = owner.credential()
    return {**entry, "auth": {**entry["auth"], "auth_url": owner.url.removesuffix("/v3")}}


#: Kind of login → entry of clouds.yaml; whether it may make credentials; whether the parts can be given it.
LOGINS: Mapping[str, tuple[Callable[[Owner], Entry], bool, bool]] = {
    "restricted": (lambda owner: owner.credential(), False, True),
    "restricted, by an address without version": (_without_version, False, True),
    "restricted, with an end": (lambda owner: owner.credential(expires_at="2099-01-01T00:00:00"), False, True),
    "unrestricted": (lambda owner: owner.credential(unrestricted=True), True, False),
    "token": (_token, True, False),
}


@pytest.mark.parametrize("kind", list(LOGINS))
def test_what_is_said_of_a_login_is_so(kind: str, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    entry, may_issue, given = LOGINS[kind]
    cloud = owner.log_in(entry(owner), monkeypatch)
    before = {row["id"] for row in owner.call("GET", owner.own)["application_credentials"]}
    own = cloud.credentials.own_login()
    assert (own.may_issue, bool(own.given)) == (may_issue, given)
    assert {row["id"] for row in owner.call("GET", owner.own)["application_credentials"]} == before, "nothing is made"
    wanted = {"application_credential": {"name": f"test-{new_uid()}", "roles": [{"name": "member"}]}}

    def make() -> None:
        made = cloud.session.service("identity").post(owner.own, wanted, operation="test")["application_credential"]
        owner.call("DELETE", f"{owner.own}/{made['id']}")

    if may_issue:
        make()
        return
    with pytest.raises(Terminal):
        make()
    handed = cloud.credentials.own_credential()
    assert cloud.session.with_credential(handed.id, handed.secret).project_id() == owner.session.project_id()


def test_access_rules_that_are_too_narrow_are_named_or_refused_in_one_line(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keystone's own API must be among the rules, or nothing can be asked of it."""
    everything = [
        {"service": service, "method": method, "path": "/**"}
        for service in ("compute", "network", "load-balancer", "identity")
        for method in ("GET", "PUT", "POST", "DELETE")
    ]
    own = owner.log_in(owner.credential(access_rules=everything), monkeypatch).credentials.own_login()
    assert " of block-storage" in own.refusal or " of volume" in own.refusal
    narrow = owner.log_in(owner.credential(access_rules=everything[:1]), monkeypatch)
    with pytest.raises(MoyaiError, match="access rules"):
        narrow.credentials.credentials(name_prefix="")

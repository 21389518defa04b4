"""Keystone: application credentials (``cloud.capabilities.Credentials``), the project and the catalog (``Account``)."""

from __future__ import annotations

from collections.abc import Sequence

from moyai.cloud.openstack.session import CloudSession
from moyai.core.errors import NotFound


class KeystoneAccount:
    def __init__(self, session: CloudSession) -> None:
        self._session = session

    def project_id(self) -> str:
        return self._session.project_id()

    def region(self) -> str:
        return self._session.region_name()

    def login_url(self) -> str | None:
        return self._session.catalog_url("identity")

    def image_mirror(self) -> str | None:
        return self._session.catalog_url("container-registry")


class KeystoneCredentials:
    def __init__(self, session: CloudSession) -> None:
        self._session = session
        self._keystone = session.service("identity")

    def create_credential(self, *, name: str, roles: Sequence[str], description: str) -> tuple[str, str]:
        made = self._keystone.post(
            self._path(),
            {
                "application_credential": {
                    "name": name,
                    "description": description,
                    "unrestricted": False,
                    # none named means all that this user has
                    **({"roles": [{"name": role} for role in roles]} if roles else {}),
                }
            },
            operation=f"create application credential {name}",
        )["application_credential"]
        return str(made["id"]), str(made["secret"])

    def credentials(self, *, name_prefix: str) -> dict[str, str]:
        rows = self._keystone.list(self._path(), "application_credentials", operation="list application credentials")
        return {row["name"]: row["id"] for row in rows if row["name"].startswith(name_prefix)}

    def delete_credential(self, credential_id: str) -> None:
        try:
            self._keystone.delete(
                f"{self._path()}/{credential_id}", operation="delete application credential", object_id=credential_id
            )
        except NotFound:
            return

    def _path(self) -> str:
        return f"/users/{self._session.user_id()}/application_credentials"

"""Keystone: the project, application credentials, the catalog (``cloud.protocols.Identity``)."""

from __future__ import annotations

from collections.abc import Sequence

from moyai.cloud.openstack.session import CloudSession
from moyai.core.errors import NotFound


class KeystoneIdentity:
    def __init__(self, session: CloudSession) -> None:
        self._session = session
        self._keystone = session.service("identity")

    def project_id(self) -> str:
        return self._session.project_id()

    def create_application_credential(self, *, name: str, roles: Sequence[str], description: str) -> tuple[str, str]:
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

    def application_credentials(self, *, name_prefix: str) -> dict[str, str]:
        rows = self._keystone.list(self._path(), "application_credentials", operation="list application credentials")
        return {row["name"]: row["id"] for row in rows if row["name"].startswith(name_prefix)}

    def delete_application_credential(self, credential_id: str) -> None:
        try:
            self._keystone.delete(
                f"{self._path()}/{credential_id}", operation="delete application credential", object_id=credential_id
            )
        except NotFound:
            return

    def region(self) -> str:
        return self._session.region_name()

    def service_url(self, service_type: str) -> str | None:
        return self._session.catalog_url(service_type)

    def _path(self) -> str:
        return f"/users/{self._session.user_id()}/application_credentials"

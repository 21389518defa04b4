"""What all of the adapter's Neutron calls share: making with tags, deleting, the extensions that a cloud has.

Neutron tags an object in a second call, except a port where the cloud loads the extension driver
``tag_ports_during_bulk_creation``. A crash between the two leaves an object with its name and without tags: names are
derived from the cluster, so that the next run finds it and tags it (``add_tags``).
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from typing import Any

from moyai.cloud.openstack.session import CloudSession, Json
from moyai.core.errors import NotFound
from moyai.core.keys import Kind

#: Kind → its collection in the API.
_PATHS: dict[Kind, str] = {
    Kind.NETWORK: "networks",
    Kind.SUBNET: "subnets",
    Kind.ROUTER: "routers",
    Kind.PORT: "ports",
    Kind.SECURITY_GROUP: "security-groups",
    Kind.RULES: "security-group-rules",
    Kind.FLOATING_IP: "floatingips",
}
#: Kind → the field of its object in requests and answers, where it is not the kind's own word.
_FIELDS: dict[Kind, str] = {Kind.SECURITY_GROUP: "security_group", Kind.FLOATING_IP: "floatingip"}
#: Kind → the words of messages, where they are not the kind's own.
_WORDS: dict[Kind, str] = {Kind.FLOATING_IP: "floating IP", Kind.RULES: "security group rule"}


#: How many ids a query names at once (44 bytes each; servers take a line of 8 kB).
IDS_PER_QUERY = 100


class NeutronBase:
    def __init__(self, session: CloudSession) -> None:
        self._session = session
        self._neutron = session.service("network")

    def _create(self, kind: Kind, name: str, *, body: Json, tags: Sequence[str]) -> Json:
        """Make and tag one object; its JSON, tags included."""
        key = _FIELDS.get(kind, str(kind))
        at_once = kind is Kind.PORT and bool(tags) and self._has("tag-ports-during-bulk-creation")
        if at_once:
            body = {**body, "tags": list(tags)}
        operation = f"create {_words(kind)} {name}".rstrip()
        made: dict[str, Any] = self._neutron.post(f"/{_PATHS[kind]}", {key: body}, operation=operation)[key]
        if tags and not set(tags) <= set(made.get("tags") or ()):
            self._neutron.put(
                self._tag_path(kind, made["id"]),
                {"tags": list(tags)},
                operation=f"tag {_words(kind)} {name}".rstrip(),
                object_id=made["id"],
            )
            made = {**made, "tags": list(tags)}
        return made

    def _delete(self, kind: Kind, object_id: str) -> None:
        """Delete; what is gone is success."""
        try:
            self._neutron.delete(f"/{_PATHS[kind]}/{object_id}", operation=f"delete {_words(kind)}", object_id=object_id)
        except NotFound:
            return

    def _own(self, tag: str | None) -> dict[str, str | Sequence[str]]:
        """The query for the project's own objects: an admin would see everybody's."""
        query: dict[str, str | Sequence[str]] = {"project_id": self._session.project_id()}
        if tag:
            query["tags"] = tag
        return query

    def _has(self, extension: str) -> bool:
        return extension in self._neutron.extensions()

    @staticmethod
    def _tag_path(kind: Kind, object_id: str) -> str:
        return f"/{_PATHS[kind]}/{object_id}/tags"


class NeutronTags(NeutronBase):
    """``cloud.capabilities.Tags``."""

    def add_tags(self, kind: Kind, object_id: str, *, tags: Sequence[str]) -> None:
        """Add tags to an object that exists; its other tags stay."""
        path = self._tag_path(kind, object_id)
        operation = f"tag {_words(kind)}"
        if self._has("tag-creation"):
            self._neutron.request("POST", path, body={"tags": list(tags)}, operation=operation, object_id=object_id)
            return
        for tag in tags:
            quoted = urllib.parse.quote(tag, safe="")
            self._neutron.request("PUT", f"{path}/{quoted}", operation=operation, object_id=object_id)


def _words(kind: Kind) -> str:
    return _WORDS.get(kind, str(kind))

"""What all of the adapter's Neutron calls share: making with tags, deleting, the extensions that a cloud has.

Neutron tags an object in a second call, except a port where the cloud loads the extension driver
``tag_ports_during_bulk_creation``. A crash between the two leaves an object with its name and without tags: names are
derived from the cluster, so that the next run finds it and tags it (``add_tags``).
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from typing import Any, ClassVar

from moyai.cloud.capabilities import Capability, CapabilityAbsent
from moyai.cloud.openstack.service_types import EXTENSIONS
from moyai.cloud.openstack.session import CloudSession, Json, Params
from moyai.core.errors import Conflict, NotFound, PermissionRefused, Terminal
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
    #: The capability of all calls, where a Neutron may lack it: then each of them raises CapabilityAbsent.
    needs: ClassVar[Capability | None] = None

    def __init__(self, session: CloudSession) -> None:
        self._session = session
        self._neutron = session.service("network", needs=self.needs)

    def _create(self, kind: Kind, name: str, *, body: Json, tags: Sequence[str]) -> Json:
        """Make and tag one object; its JSON, tags included. Raises CapabilityAbsent before it makes what cannot be tagged."""
        if tags:
            self._session.require(Capability.TAGS)
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

    def _list(self, kind: Kind, operation: str, *, tag: str | None, query: Params) -> list[Json]:
        """All objects of a kind that the query finds and that show ``tag``. A Neutron without tags shows none, and refuses a
        query for them."""
        path = _PATHS[kind]
        if tag:
            if not self._has(EXTENSIONS[Capability.TAGS]):
                return []
            query = {**query, "tags": tag}
        return self._neutron.list(f"/{path}", path.replace("-", "_"), operation=operation, params=query)

    def _own(self) -> Params:
        """The query for the project's own objects: an admin would see everybody's."""
        return {"project_id": self._session.project_id()}

    def _may(self, path: str, body: Json, *, operation: str) -> bool:
        """Whether policies let the user make what Neutron cannot make, since ``body`` names something that does not exist: it
        looks at its policies first."""
        try:
            self._neutron.post(path, body, operation=operation)
        except CapabilityAbsent:
            raise
        except PermissionRefused:
            return False
        except (Conflict, NotFound, Terminal):
            return True
        raise Terminal(f"the network service did what it cannot: {operation}", hint="ask the cloud's operator")

    def _has(self, extension: str) -> bool:
        return extension in self._session.service("network").extensions()

    @staticmethod
    def _tag_path(kind: Kind, object_id: str) -> str:
        return f"/{_PATHS[kind]}/{object_id}/tags"


class NeutronTags(NeutronBase):
    """``cloud.capabilities.Tags``."""

    needs = Capability.TAGS

    def add_tags(self, kind: Kind, object_id: str, *, tags: Sequence[str]) -> None:
        """Add tags to an object that exists; its other tags stay."""
        self._session.require(Capability.TAGS)
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

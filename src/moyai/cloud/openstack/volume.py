"""Cinder: volumes (``cloud.protocols.Volumes``)."""

from __future__ import annotations

from collections.abc import Mapping

from moyai.cloud.model import Quota, Volume
from moyai.cloud.openstack import parse
from moyai.cloud.openstack.session import CloudSession
from moyai.core.errors import NotFound


class CinderVolumes:
    def __init__(self, session: CloudSession) -> None:
        self._cinder = session.service("block-storage")

    def volumes(self, *, metadata: Mapping[str, str] | None = None) -> list[Volume]:
        wanted = dict(metadata or {})
        # Cinder reads the filter as a Python literal, and a cloud may have it switched off: so filtered here too
        params = {"metadata": repr(wanted)} if wanted else {}
        rows = self._cinder.list("/volumes/detail", "volumes", operation="list volumes", params=params)
        found = [parse.volume(row) for row in rows]
        return [one for one in found if all(one.metadata.get(key) == value for key, value in wanted.items())]

    def volume(self, volume_id: str) -> Volume:
        answer = self._cinder.get(f"/volumes/{volume_id}", operation="show volume", object_id=volume_id)
        return parse.volume(answer["volume"])

    def delete_volume(self, volume_id: str) -> None:
        try:
            self._cinder.delete(f"/volumes/{volume_id}", operation="delete volume", object_id=volume_id)
        except NotFound:
            return

    def quotas(self) -> list[Quota]:
        return parse.volume_quotas(self._cinder.get("/limits", operation="read volume quotas"))

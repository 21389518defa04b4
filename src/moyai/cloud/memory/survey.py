"""What the cloud in memory says about itself: it has what the store's cloud has, and its clock is the store's."""

from __future__ import annotations

from moyai.cloud.memory.session import MemoryApi, api
from moyai.cloud.survey import CloudService, Feature, OwnIdentity, ServerCertificate


class MemorySurvey(MemoryApi):
    service = "survey"

    #: Orders of tests.
    offered = frozenset(Feature)
    free: int | None = 200
    ahead: float | None = 0.0
    shown: tuple[ServerCertificate, ...] = ()

    @api
    def login(self) -> OwnIdentity:
        found = self._session.own()
        if found is None:
            return OwnIdentity("password", "user", "project")
        name, own = found
        kind = "unrestricted" if own.unrestricted else "restricted"
        return OwnIdentity(f"{kind} application credential {name}", "user", "project", own.expires)

    @api
    def services(self) -> list[CloudService]:
        return [CloudService("memory", "memory:", "1")]

    @api
    def features(self) -> frozenset[Feature]:
        return self.offered

    @api
    def free_addresses(self, network_id: str) -> int | None:
        return self.free if network_id in self._store.networks else None

    @api
    def clock_ahead(self) -> float | None:
        return self.ahead

    @api
    def certificates(self) -> list[ServerCertificate]:
        return list(self.shown)

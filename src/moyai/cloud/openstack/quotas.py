"""Quotas of Nova and Neutron, asked side by side (``cloud.capabilities.Quotas``)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Quota
from moyai.cloud.openstack import parse
from moyai.cloud.openstack.neutron.parts import NeutronBase
from moyai.cloud.openstack.nova import NovaMachines
from moyai.cloud.openstack.session import CloudSession
from moyai.core.errors import NotFound


class OpenStackQuotas(NeutronBase):
    needs = Capability.QUOTAS

    def __init__(self, session: CloudSession, machines: NovaMachines) -> None:
        super().__init__(session)
        self._machines = machines

    def quotas(self) -> list[Quota]:
        self._session.require(Capability.QUOTAS)
        with ThreadPoolExecutor(1, thread_name_prefix="quotas") as pool:
            network = pool.submit(self._network_quotas)
            return [*self._machines.quotas(), *network.result()]

    def _network_quotas(self) -> list[Quota]:
        project = self._session.project_id()
        operation = "read network quotas"
        if self._has("quota_details"):
            try:
                found = self._neutron.get(f"/quotas/{project}/details", operation=operation, object_id=project)
                return parse.network_quotas(found)
            except NotFound:
                # a plugin that names the extension and does not serve it
                pass
        return parse.network_quotas(self._neutron.get(f"/quotas/{project}", operation=operation, object_id=project))

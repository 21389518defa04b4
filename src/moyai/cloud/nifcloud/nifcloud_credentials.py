"""How the parts inside a cluster log in (``cloud.capabilities.Credentials``): with the account's access key that the user has,
because the API makes no others. It is handed over whole, and the user is told so. It never changes anything in the cloud."""

from __future__ import annotations

from moyai.cloud.capabilities import Capability, CapabilityAbsent
from moyai.cloud.credentials import Credential, IssuedCredential, OwnLogin, Use
from moyai.cloud.nifcloud.access_keys import AccessKey
from moyai.core.errors import Terminal

_NOTE = (
    "the parts on control planes log in with your access key, which may do whatever you may: "
    "use the key of a sub-account for moyai, and renew it when the cluster is gone"
)


class NifcloudCredentials:
    """``key``: None where the calls are made by something that has none."""

    def __init__(self, key: AccessKey | None, *, cloud: str) -> None:
        self._key, self._cloud = key, cloud

    def own_login(self) -> OwnLogin:
        if self._key is None:
            return OwnLogin(may_issue=False, refusal="there is no access key")
        return OwnLogin(may_issue=False, given=self._key.id, notes=(_NOTE,))

    def own_credential(self) -> IssuedCredential:
        if self._key is None:
            raise Terminal(f"cloud {self._cloud}: there is no access key")
        return IssuedCredential(self._key.id, self._key.secret)

    def create_credential(self, *, name: str, use: Use, description: str) -> IssuedCredential:
        raise CapabilityAbsent(self._cloud, Capability.CREDENTIALS, hint="its access keys are made in the control panel")

    def credentials(self, *, name_prefix: str) -> list[Credential]:
        return []

    def delete_credential(self, credential_id: str) -> None:
        """There is none to delete."""

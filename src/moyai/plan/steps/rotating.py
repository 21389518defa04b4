"""Steps that bring machines and objects of a running cluster to the keys and certificates on record.

Always holds: what is written comes from the record; each step may come again, and a second time it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moyai.cloud.credentials import Use
from moyai.core.ids import Role
from moyai.core.keys import Key, Kind
from moyai.plan.steps.base import Step, Verb


def static_pods(node: str) -> Key:
    """The condition that a control plane's static pods run with the keys of today."""
    return Key(Kind.CONDITION, f"static pods of {node}")


@dataclass(frozen=True, kw_only=True)
class SetMachineKeys(Step):
    """Give a machine the keys and certificates that the record has. ``what``: is rotated, in words."""

    verb: ClassVar[Verb] = Verb.SET
    detail: str = "keys"
    node: str
    role: Role
    what: str

    @property
    def text(self) -> str:
        return f"set the {self.what} of {self.key}"


@dataclass(frozen=True, kw_only=True)
class WaitStaticPods(Step):
    """``pods``: their names without the node's. ``generation``: that their manifests must have."""

    verb: ClassVar[Verb] = Verb.WAIT
    node: str
    generation: str
    pods: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"wait until the {self.key.name} run again"


@dataclass(frozen=True, kw_only=True)
class IssueCredential(Step):
    """Make a credential of the cloud that is to take the place of the one in use."""

    verb: ClassVar[Verb] = Verb.CREATE
    name: str
    use: Use

    @property
    def text(self) -> str:
        return f"create credential {self.name} for the {self.use}"


@dataclass(frozen=True, kw_only=True)
class InstallCredential(Step):
    """Let the part that logs in with a credential use the one that was made for its place."""

    verb: ClassVar[Verb] = Verb.SET
    use: Use

    @property
    def text(self) -> str:
        return f"let the {self.use} log in with the new credential"


@dataclass(frozen=True, kw_only=True)
class RetireCredential(Step):
    """Delete the credential that nobody uses any more."""

    verb: ClassVar[Verb] = Verb.DELETE

    @property
    def text(self) -> str:
        return f"delete the old {self.key}"


@dataclass(frozen=True, kw_only=True)
class PublishAuthority(Step):
    """Give kubeadm's public information for machines that join by hand the authorities on record."""

    verb: ClassVar[Verb] = Verb.SET

    @property
    def text(self) -> str:
        return f"set the authorities in {self.key}"


@dataclass(frozen=True, kw_only=True)
class RewriteSecrets(Step):
    """Have the API server store each Secret again, with the first of its keys."""

    verb: ClassVar[Verb] = Verb.WRITE

    @property
    def text(self) -> str:
        return "store all Secrets again, with the new key"


@dataclass(frozen=True, kw_only=True)
class RenewLegacyTokens(Step):
    """Have the tokens in Secrets, which never end by themselves, signed again."""

    verb: ClassVar[Verb] = Verb.WRITE

    @property
    def text(self) -> str:
        return "sign the tokens again that are in Secrets of service accounts"

"""How people log in to machines, and how the parts inside the cluster log in to the cloud.

The second is a strategy, chosen by what the cloud offers and by what the user's own login can do: a credential of the cloud
that moyai makes for each part, or the credential that the user is logged in with. Another way is another class here and one
more case of ``logins_of``; ``bootstrap.addons`` writes the login into the parts' configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from moyai.cloud.capabilities import Capability
from moyai.cloud.credentials import OwnLogin, Use
from moyai.core.errors import Terminal
from moyai.core.keys import Key
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation
from moyai.plan.existing import credential_names

#: Credential → who logs in with it.
USES: Mapping[Key, Use] = {keys.CONTROLLERS_CREDENTIAL: Use.CONTROLLERS, keys.VOLUMES_CREDENTIAL: Use.VOLUMES}


class Logins(Protocol):
    def steps(self, now: Situation) -> Iterator[s.Step]:
        """What must be made for the parts inside the cluster before a control plane's user data says how they log in."""
        ...


def logins_of(cloud: str, capabilities: frozenset[Capability], *, own: OwnLogin) -> Logins:
    """The strategy for a cloud that offers this, and for the user's ``own`` login. Raises Terminal where there is none."""
    if Capability.CREDENTIALS not in capabilities:
        raise Terminal(
            f"cloud {cloud} has no {Capability.CREDENTIALS}: "
            "the parts inside the cluster could not log in without your own password",
            hint="have the operator allow credentials for programs",
        )
    if own.may_issue:
        return CredentialForEachPart()
    return OwnCredential(cloud, own)


class CredentialForEachPart:
    """A credential of the cloud for each add-on that reaches it."""

    def steps(self, now: Situation) -> Iterator[s.Step]:
        for key, name in _missing(now):
            use = USES[key]
            if stale := now.observed.credentials.get(name):
                yield s.Delete(key=key, object_id=stale, why="its secret was lost")
            purpose = f"{use} of moyai cluster {now.cluster.name}"
            yield s.CreateCredential(key=key, after=(s.deleted(key),), name=name, purpose=purpose, use=use)


class OwnCredential:
    """The credential that the user is logged in with, for every add-on: it may not make others."""

    def __init__(self, cloud: str, own: OwnLogin) -> None:
        self._cloud, self._own = cloud, own

    def steps(self, now: Situation) -> Iterator[s.Step]:
        """Raises Terminal where the login is of no use to the parts."""
        for key, _ in _missing(now):
            if not self._own.given:
                raise Terminal(
                    f"cloud {self._cloud}: the parts inside the cluster could not log in: {self._own.refusal}",
                    hint="log in with a password, or with a credential for programs",
                )
            yield s.HandOverCredential(key=key, name=self._own.given, use=USES[key])


def login_notes(now: Situation) -> Iterator[str]:
    """What the user must know of how the parts will log in and reach the cloud."""
    if any(_missing(now)):
        yield from now.observed.login.notes
        yield from now.observed.account.reach.notes


def plan_key_pair(now: Situation) -> Iterator[s.Step]:
    if not now.existing.key_pair:
        yield s.CreateKeypair(key=keys.KEY_PAIR, name=keys.unique_name(now.cluster.name, now.recorded.uid))


def _missing(now: Situation) -> Iterator[tuple[Key, str]]:
    """Credentials that the add-ons have not got yet, each with the name of one that would be made."""
    if now.recorded.ready:  # the cluster has what it was made with
        return
    wanted = {addon.credential for addon in now.addons}
    for key, name in credential_names(now.cluster.name, now.recorded.uid).items():
        if key in wanted and key not in now.existing.credentials:
            yield key, name

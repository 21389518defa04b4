"""How people log in to machines, and how the parts inside the cluster log in to the cloud.

The second is a strategy, chosen by what the cloud offers. Today's is a credential of the cloud that moyai makes for each part.
Another way (a login that the user hands in) is another class here and one more case of ``logins_of``; ``bootstrap.addons``
writes the login into the parts' configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from moyai.cloud.capabilities import Capability
from moyai.cloud.credentials import Use
from moyai.core.errors import Terminal
from moyai.core.keys import Key
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation
from moyai.plan.existing import credential_names

#: Credential → who logs in with it.
_USES: Mapping[Key, Use] = {keys.CONTROLLERS_CREDENTIAL: Use.CONTROLLERS, keys.VOLUMES_CREDENTIAL: Use.VOLUMES}


class Logins(Protocol):
    def steps(self, now: Situation) -> Iterator[s.Step]:
        """What must be made for the parts inside the cluster before a control plane is told how they log in."""
        ...


def logins_of(cloud: str, capabilities: frozenset[Capability]) -> Logins:
    """The strategy for a cloud that offers this. Raises Terminal where there is none."""
    if Capability.CREDENTIALS in capabilities:
        return CredentialForEachPart()
    raise Terminal(
        f"cloud {cloud} has no {Capability.CREDENTIALS}: "
        "the parts inside the cluster could not log in without your own password",
        hint="have the operator allow application credentials",
    )


class CredentialForEachPart:
    """A credential of the cloud for each add-on that reaches it."""

    def steps(self, now: Situation) -> Iterator[s.Step]:
        if not now.recorded.ready:  # later the cluster has what it was made with
            yield from _credentials(now)


def plan_key_pair(now: Situation) -> Iterator[s.Step]:
    if not now.existing.key_pair:
        yield s.CreateKeypair(key=keys.KEY_PAIR, name=keys.unique_name(now.cluster.name, now.recorded.uid))


def _credentials(now: Situation) -> Iterator[s.Step]:
    wanted = {addon.credential for addon in now.addons}
    for key, name in credential_names(now.cluster.name, now.recorded.uid).items():
        if key not in wanted or key in now.existing.credentials:
            continue
        use = _USES[key]
        # one whose secret was never recorded is of no use
        stale = now.observed.credentials.get(name, "")
        purpose = f"{use} of moyai cluster {now.cluster.name}"
        yield s.CreateCredential(key=key, name=name, purpose=purpose, use=use, stale_id=stale)

"""How people log in to machines, and how the parts inside the cluster log in to the cloud."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from moyai.core.keys import Key
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation
from moyai.plan.existing import credential_names

#: Credential → who has it, and the roles that it needs; a cloud without these roles gives it all of its user's.
_PURPOSES: Mapping[Key, tuple[str, tuple[str, ...]]] = {
    keys.CONTROLLERS_CREDENTIAL: ("cloud controller manager", ("member", "load-balancer_member")),
    keys.VOLUMES_CREDENTIAL: ("CSI driver", ("member",)),
}


def plan_credentials(now: Situation) -> Iterator[s.Step]:
    if not now.existing.key_pair:
        yield s.CreateKeypair(key=keys.KEY_PAIR, name=keys.unique_name(now.cluster.name, now.recorded.uid))
    if now.recorded.ready:
        # the cluster has what it was made with
        return
    wanted = {addon.credential for addon in now.addons}
    for key, name in credential_names(now.cluster.name, now.recorded.uid).items():
        if key not in wanted or key in now.existing.credentials:
            continue
        who, roles = _PURPOSES[key]
        # one whose secret was never recorded is of no use
        stale = now.observed.credentials.get(name, "")
        purpose = f"{who} of moyai cluster {now.cluster.name}"
        yield s.CreateCredential(key=key, name=name, purpose=purpose, roles=roles, stale_id=stale)

"""Whether the user data of a plan's machines is small enough for the cloud: checked before anything is made.

Always holds: what is measured is rendered as it will be for the machine, with stand-ins of full length for what is not known
yet (ids, keys, secrets); stand-ins are random, as text that repeats itself would pack better than the real ones, and the same
each time, so that a worker that fits once fits again.
"""

from __future__ import annotations

import random
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from moyai.bootstrap.machine import ClusterFacts, Secrets, server_content
from moyai.bootstrap.pki import AUTHORITIES, Pki
from moyai.bootstrap.user_data import UserDataTooLarge, encoded_size
from moyai.core.errors import Terminal, UsageError
from moyai.core.keys import Key
from moyai.plan.graph import Made
from moyai.plan.steps import CreateServer
from moyai.spec.model import NodePool

#: Two renderings of the same facts differ by a few bytes, as random parts pack differently.
_SLACK = 256
#: The part of the limit that labels and taints may take unmeasured: user data without them take far less than half of the
#: limit, and grow by less than twice what is added.
_CERTAIN = 4
#: The same of the user's part in a control plane's user data, which take less than three quarters of the limit without it.
_CERTAIN_OF_PLANE = 10
#: More than a certificate or key of the cluster has.
_LONGEST_PEM = 1000


def check_user_data(facts: ClusterFacts) -> None:
    """Raises UsageError for the first machine of the plan whose user data a cloud would not take, with what takes the room."""
    if facts.cloud_kind.starts_by_script:
        return  # the script is as long for each machine
    limit = facts.cloud_kind.user_data_limit
    workers: dict[str, CreateServer] = {}
    for step in facts.plan.steps:
        if not isinstance(step, CreateServer):
            continue
        if step.node.role != "worker":
            if _length_of_users_part(facts) <= limit // _CERTAIN_OF_PLANE:
                continue  # rendered once, when the machine is made: encrypting its secrets takes the longest part of a plan
            size = _size(step, facts)
            if size > limit - _SLACK:
                way = facts.account.reach
                if len(way.authorities) + len(way.certificate) > limit // _CERTAIN:
                    raise UsageError(
                        f"user data of node {step.node.name} would have {size} bytes, the cloud takes {limit}: "
                        f"the certificates of cloud {facts.cluster.spec.cloud} take most of them",
                        hint="give `cacert` a file with only the authorities that sign the cloud's own certificates",
                    )
                raise Terminal(f"user data of node {step.node.name} would have {size} bytes, the cloud takes {limit}")
        elif len(step.node.name) >= len(workers.get(step.node.pool, step).node.name):
            workers[step.node.pool] = step
    for number, pool in enumerate(facts.cluster.spec.node_pools):
        if pool.name in workers and _length(pool) > limit // _CERTAIN:
            where = f"spec.nodePools[{number}]"
            _check_pool(where, pool, limit=limit, size_with=_sizes(workers[pool.name], facts))


def _sizes(step: CreateServer, facts: ClusterFacts) -> Callable[[NodePool], int]:
    """Pool → size of the user data that ``step`` would have with it."""
    return lambda pool: _size(step, _with_pool(facts, pool))


def _check_pool(where: str, pool: NodePool, *, limit: int, size_with: Callable[[NodePool], int]) -> None:
    size = size_with(pool)
    if size <= limit - _SLACK:
        return
    takes = {
        field: size - size_with(pool.model_copy(update={field: type(given)()}))
        for field, given in (("labels", pool.labels), ("taints", pool.taints))
        if given
    }
    parts = [f"{len(getattr(pool, field))} {field} take {taken}" for field, taken in takes.items()]
    field = max(takes, key=lambda one: takes[one])
    raise UsageError(
        f"{where}.{field}: user data of this pool's nodes would have {size} bytes, the cloud takes {limit} "
        f"({', '.join(parts)})",
        hint=f"should be fewer or shorter {field}",
    )


def _length(pool: NodePool) -> int:
    labels = sum(len(key) + len(value) for key, value in pool.labels.items())
    # each taint has three keys of its own
    return labels + sum(len(taint.key) + len(taint.value) + 50 for taint in pool.taints)


def _length_of_users_part(facts: ClusterFacts) -> int:
    """Of all in a control plane's user data that has no fixed length: the spec, without the pools, which are the workers'
    matter, and without access, which is the firewall's; and what the cloud's login brings."""
    way = facts.account.reach
    spec = facts.cluster.spec.model_dump_json(exclude={"node_pools", "access"})
    return len(spec) + len(way.authorities) + len(way.certificate)


def _with_pool(facts: ClusterFacts, pool: NodePool) -> ClusterFacts:
    spec = facts.cluster.spec
    pools = [pool if one.name == pool.name else one for one in spec.node_pools]
    cluster = facts.cluster.model_copy(update={"spec": spec.model_copy(update={"node_pools": pools})})
    return replace(facts, cluster=cluster)


def _size(step: CreateServer, facts: ClusterFacts) -> int:
    """Bytes of the user data of ``step``, as a cloud counts them."""
    noise = random.Random(0)
    made = Made(_Any(lambda: str(UUID(bytes=noise.randbytes(16)))), network_mtu=9000, api_address="255.255.255.255")
    stand_ins = Secrets(
        pki=_pki(noise),
        token=f"{_text(noise, 6)}.{_text(noise, 16)}",
        unsealing_key=_text(noise, 43),
        encryption_key=_text(noise, 44),
        credentials=_Any(lambda: _text(noise, 86)),
    )
    try:
        return encoded_size(server_content(step, facts, made=made, secrets=stand_ins).user_data)
    except UserDataTooLarge as error:
        return error.size


class _Any(dict[Key, str]):
    """Has a value for every key."""

    def __init__(self, value: Callable[[], str]) -> None:
        super().__init__()
        self._value = value

    def __missing__(self, key: Key) -> str:
        return self._value()

    def get(self, key: Key, default: object = None, /) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._value()


def _text(noise: random.Random, length: int) -> str:
    return urlsafe_b64encode(noise.randbytes(length)).decode()[:length]


def _pki(noise: random.Random) -> Pki:
    names = [f"{name}.{kind}" for name in AUTHORITIES for kind in ("crt", "key")]
    return Pki(Path(), {name: b64encode(noise.randbytes(_LONGEST_PEM * 3 // 4)) for name in (*names, "sa.pub", "sa.key")})

"""What changes below without a call: machines that end by themselves, members that answer or not, images."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from moyai.nifcloud_front.store.rows import BalancerRow, ElasticBalancerRow, ImageRow, InstanceRow, ZoneRow
from moyai.nifcloud_front.works.balancer_work import look
from moyai.nifcloud_front.works.instance_work import seen_state
from moyai.nifcloud_front.works.step import FRONT_TAG, WorkContext

#: Numbers of images count from here.
_FIRST_IMAGE = 10001


def watch_images(context: WorkContext) -> None:
    """Give each image below a number, which stays."""
    found = [one for one in context.cloud.images.images() if one.ready]
    with context.store.transaction() as tx:
        rows = tx.all(ImageRow)
        known = {row.cloud_id for row in rows}
        number = max((int(row.uid) for row in rows), default=_FIRST_IMAGE - 1)
        for row in rows:
            if row.cloud_id not in {one.id for one in found}:
                tx.drop(row)
        names = {row.name for row in tx.all(ImageRow)}
        for one in found:
            if one.id not in known:
                number += 1
                tx.put(ImageRow(str(number), one.name if one.name not in names else f"{one.name} {number}", one.id))
                names.add(one.name)


def watch_instances(context: WorkContext) -> None:
    """States of instances on which no work is under way."""
    with context.store.transaction() as tx:
        before = {row.uid: row for row in tx.all(InstanceRow) if row.cloud_id and not tx.busy(row)}
    servers = {one.id: one for one in context.cloud.machines.servers(tag=FRONT_TAG)}
    with context.store.transaction() as tx:
        for row in tx.all(InstanceRow):
            # what was changed meanwhile is newer than the list of servers
            if before.get(row.uid) != row or tx.busy(row):
                continue
            state = seen_state(row, servers.get(row.cloud_id))
            if state == row.state:
                continue
            tx.put(replace(row, state=state, previous=row.state))


def watch_balancers(context: WorkContext) -> None:
    """Which members of balancers answer; and balancers whose members have changed by themselves, as by a machine that boots."""
    with context.store.transaction() as tx:
        rows: list[BalancerRow | ElasticBalancerRow] = [*tx.all(BalancerRow), *tx.all(ElasticBalancerRow)]
        rows = [row for row in rows if row.cloud_id and row.pairs and not tx.busy(row)]
    for row in rows:
        seen = look(context, row)
        if seen is not None:
            with context.store.transaction() as tx:
                if tx.busy(row):
                    continue
                seen.healthy(tx)
                if seen.differs and (now := tx.get(type(row), row.uid)):
                    tx.schedule(now, "serve" if isinstance(row, BalancerRow) else "change")


def set_zones(context: WorkContext, zones: Collection[tuple[str, str]]) -> None:
    """``zones``: NIFCLOUD's name and the availability zone below. Zones that are known stay."""
    with context.store.transaction() as tx:
        for name, below in zones:
            tx.put(ZoneRow(name, name, below))

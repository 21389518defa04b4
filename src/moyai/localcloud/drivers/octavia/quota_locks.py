# pyright: basic, reportMissingImports=false
"""Octavia's quotas, taken at the end of an API call's transaction instead of at its beginning.

Octavia locks the quotas of a project as the first thing that a creation does, then has Neutron make the VIP's port and writes
the whole tree, and lets the lock go with the commit. So all creations in a project, and all deletions, which give quota back,
wait for each other's ports. Here a creation that is over the quota is refused at the same place, by a plain read; the lock, the
exact check and the new count come with the commit, in the same transaction: a count is never without its object.
"""

from __future__ import annotations

from octavia.common import data_models, exceptions
from octavia.db import models, repositories
from oslo_config import cfg
from sqlalchemy import event

_COUNTED = {
    data_models.LoadBalancer: ("load_balancer", models.LoadBalancer),
    data_models.Listener: ("listener", models.Listener),
    data_models.Pool: ("pool", models.Pool),
    data_models.HealthMonitor: ("health_monitor", models.HealthMonitor),
    data_models.Member: ("member", models.Member),
    data_models.L7Policy: ("l7policy", models.L7Policy),
    data_models.L7Rule: ("l7rule", models.L7Rule),
}
_OPEN = "moyai_quotas"  # in a session: what its transaction is to take


def take_at_commit() -> None:
    """Let this process's API calls do so."""
    repositories.Repositories.check_quota_met = _check_quota_met


def _check_quota_met(self, session, _class, project_id, count=1):
    """As Octavia's: whether the quota does not allow so many more."""
    if not project_id:
        raise exceptions.MissingProjectID()
    self.quotas.ensure_project_exists(project_id)
    name, _ = _COUNTED[_class]
    row = session.query(models.Quotas).filter_by(project_id=project_id).populate_existing().first()
    if _over(row, name, total=(getattr(row, f"in_use_{name}") or 0) + count):
        return True
    if _OPEN not in session.info:
        session.info[_OPEN] = []
        event.listen(session, "before_commit", _take)
        event.listen(session, "after_soft_rollback", _forget)
    session.info[_OPEN].append((_class, project_id, count))
    return False


def _take(session):
    wanted, session.info[_OPEN] = session.info[_OPEN], []
    for kind, project_id, count in wanted:
        name, model = _COUNTED[kind]
        query = session.query(models.Quotas).filter_by(project_id=project_id)
        row = query.populate_existing().with_for_update().first()
        total = getattr(row, f"in_use_{name}")
        if total:
            total += count
        else:
            # nothing was counted yet: the objects are, with those of this transaction among them
            alive = model.provisioning_status != "DELETED"
            total = session.query(model).filter(model.project_id == project_id, alive).count()
        if _over(row, name, total=total):
            raise exceptions.QuotaException(resource=kind._name())
        setattr(row, f"in_use_{name}", total)
        session.flush()


def _forget(session, _previous):
    session.info[_OPEN] = []


def _over(row, name, *, total):
    quota = getattr(row, name)
    limit = getattr(cfg.CONF.quotas, f"default_{name}_quota") if quota is None else quota
    return limit != -1 and total > limit

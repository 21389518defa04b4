"""Kind of object and verb → the step function of the work."""

from __future__ import annotations

from collections.abc import Mapping

from moyai.nifcloud_front.works import balancer_work, disk_work, instance_work, network_work
from moyai.nifcloud_front.works.step import Step

VERBS: Mapping[tuple[str, str], Step] = {
    ("instance", "create"): instance_work.create,
    ("instance", "start"): instance_work.start,
    ("instance", "stop"): instance_work.stop,
    ("instance", "force-stop"): instance_work.stop,
    ("instance", "reboot"): instance_work.reboot,
    ("instance", "modify"): instance_work.modify,
    ("instance", "readdress"): instance_work.readdress,
    ("instance", "terminate"): instance_work.terminate,
    ("disk", "create"): disk_work.create,
    ("disk", "attach"): disk_work.attach,
    ("disk", "detach"): disk_work.detach,
    ("disk", "extend"): disk_work.extend,
    ("disk", "delete"): disk_work.delete,
    ("group", "apply"): network_work.apply_group,
    ("group", "delete"): network_work.delete_group,
    ("lan", "create"): network_work.create_lan,
    ("lan", "delete"): network_work.delete_lan,
    ("router", "create"): network_work.create_router,
    ("router", "delete"): network_work.delete_router,
    ("address", "allocate"): network_work.allocate,
    ("address", "release"): network_work.release,
    ("key", "create"): network_work.import_key,
    ("key", "delete"): network_work.delete_key,
    ("balancer", "serve"): balancer_work.serve,
    ("elastic-balancer", "change"): balancer_work.change,
}

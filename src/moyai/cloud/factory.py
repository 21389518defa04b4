"""The one place where adapters are constructed: a cloud by the user's name for it, or by a cluster's ``cloud.conf``.

Nothing is sent before the first call, and an adapter is imported only when a cloud of its kind is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moyai.cloud.capabilities import Cloud, Guest

if TYPE_CHECKING:
    from moyai.cloud.openstack.cloud_conf import GlobalConfig


def connect(name: str | None = None) -> Cloud:
    """The cloud of the entry ``name`` in clouds.yaml (None: ``OS_CLOUD``, or the only entry).

    Raises UsageError for an entry that is not there or not complete.
    """
    from moyai.cloud import openstack

    return openstack.connect(name)


def guest(driver: str) -> Guest:
    """What this machine knows of itself, by the name of the CSI driver of its cloud. KeyError for a driver of no adapter."""
    return _GUESTS[driver]()


def _openstack_guest() -> Guest:
    from moyai.cloud.openstack.guest import OpenStackGuest

    return OpenStackGuest()


_GUESTS = {"cinder.csi.openstack.org": _openstack_guest}


def connect_with(config: GlobalConfig) -> Cloud:
    """The cloud that section ``[Global]`` of a cluster's cloud.conf describes. Raises UsageError where something is missing."""
    from moyai.cloud.openstack.adapter import OpenStackCloud
    from moyai.cloud.openstack.cloud_conf import log_in

    return OpenStackCloud(log_in(config))

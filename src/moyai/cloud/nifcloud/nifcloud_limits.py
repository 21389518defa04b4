"""What NIFCLOUD allows, as data: plans and controllers refuse early what a call would refuse late.

Sources: the API's documentation and the validators of the vendor's Terraform provider. None of them was tried on the real
cloud.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Of user data, counted after base64.
USER_DATA_BYTES = 8192
#: Rules in one firewall group; groups in one zone.
GROUP_RULES, ZONE_GROUPS = 100, 60
#: Additional disks of one server.
SERVER_DISKS = 14
#: GiB: disks grow by whole steps.
DISK_STEP_GB, DISK_MOST_GB = 100, 4000
#: A key pair's name has 6 to 32 letters and digits, and its key is of one of these kinds.
KEY_NAME_LENGTHS = (6, 32)
KEY_KINDS = ("ssh-rsa", "ssh-dss")


#: Word → what the API calls it.
ACCOUNTING = {"monthly": "1", "hourly": "2"}


@dataclass(frozen=True)
class Terms:
    """On which terms things are made that name none themselves. ``zone`` empty: the account's default one. ``accounting``: the
    API's number, 1 by the month, 2 by the hour.

    ``others``: further zones, whose private LANs a private bridge joins with that of ``zone``. What belongs to a zone and is
    the cluster's in all of them (private LANs, firewall groups) is made in each. ``whole_region``: servers may be in any zone;
    otherwise in these alone."""

    zone: str = ""
    accounting: str = ACCOUNTING["hourly"]
    others: tuple[str, ...] = ()
    whole_region: bool = True

    @property
    def places(self) -> tuple[str, ...]:
        """The zones; an empty one is the account's default."""
        return (self.zone, *self.others)


@dataclass(frozen=True)
class BalancerLimits:
    """Of one type of load balancer. ``volumes``: Mbit/s that can be ordered. ``filters``: addresses that may be let in, 0: the
    type has no filter. ``udp``, ``private``: whether it can."""

    name: str
    ports: int
    filters: int
    volumes: tuple[int, ...]
    udp: bool
    private: bool
    interval: tuple[int, int] = (5, 300)
    threshold: tuple[int, int] = (1, 10)


_FINE, _COARSE = tuple(range(10, 50, 10)), tuple(range(100, 2100, 100))
L4 = BalancerLimits("lb", ports=3, filters=30, volumes=(*_FINE, *_COARSE), udp=False, private=False)
ELB = BalancerLimits("elb", ports=3, filters=0, volumes=(*_FINE, *range(100, 600, 100)), udp=True, private=True)

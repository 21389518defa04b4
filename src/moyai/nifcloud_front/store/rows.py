"""NIFCLOUD's objects as the front keeps them.

``uid`` is the id that never changes. ``name`` is what users call the object; it can change, and is empty for objects without
names. ``cloud_id`` is the id of the object that stands for it in the cloud below, empty until that object is known. References
between rows are uids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

LONG_AGO = datetime.fromtimestamp(0, UTC)
#: The given networks. The first has public addresses.
COMMON_GLOBAL, COMMON_PRIVATE = "net-COMMON_GLOBAL", "net-COMMON_PRIVATE"

InstanceState = Literal["pending", "running", "stopped", "warning", "terminated"]
#: What the API says beside a state's name.
STATE_CODES: dict[str, int] = {"pending": 0, "running": 16, "terminated": 48, "stopped": 80, "warning": 96}


@dataclass(frozen=True)
class NicRow:
    """An interface of an instance. ``asked``: ``static``, an address, or empty for DHCP."""

    network: str
    asked: str = ""
    address: str = ""
    mac: str = ""
    port_id: str = ""


@dataclass(frozen=True)
class InstanceRow:
    """``image``: number. ``group``, ``elastic``: uids, empty for none. ``public``: address that the machine is reached by."""

    uid: str
    name: str
    image: str
    type: str
    zone: str
    state: InstanceState = "pending"
    previous: InstanceState = "pending"
    key: str = ""
    group: str = ""
    description: str = ""
    accounting: str = "2"
    ip_type: str = "static"
    elastic: str = ""
    public: str = ""
    nics: tuple[NicRow, ...] = ()
    protected: bool = False
    user_data: str = ""
    launched: datetime = LONG_AGO
    cloud_id: str = ""


@dataclass(frozen=True)
class DiskRow:
    """``instance``: uid, empty while detached. ``slot``: N of the device name ``SCSI (0:N)``."""

    uid: str
    name: str
    size_gb: int
    type: str
    zone: str
    status: Literal["creating", "in-use", "available"] = "creating"
    attachment: Literal["", "attaching", "attached", "detaching"] = ""
    instance: str = ""
    slot: int = 0
    description: str = ""
    accounting: str = "2"
    created: datetime = LONG_AGO
    attached: datetime = LONG_AGO
    cloud_id: str = ""


@dataclass(frozen=True, order=True)
class RuleRow:
    """One permission. ``first`` and ``last`` are ports, 0 for none. One of ``cidr`` and ``group`` (uid) is set, or neither."""

    direction: Literal["IN", "OUT"]
    protocol: str
    first: int = 0
    last: int = 0
    cidr: str = ""
    group: str = ""
    description: str = field(default="", compare=False)
    added: datetime = field(default=LONG_AGO, compare=False)


@dataclass(frozen=True)
class GroupRow:
    uid: str
    name: str
    zone: str
    description: str = ""
    rules: tuple[RuleRow, ...] = ()
    rule_limit: int = 100
    log_limit: int = 1000
    cloud_id: str = ""


@dataclass(frozen=True)
class LanRow:
    """``cloud_id``: the network's; ``subnet_id``: of its one subnet."""

    uid: str
    name: str
    cidr: str
    zone: str
    description: str = ""
    accounting: str = "2"
    state: Literal["pending", "available"] = "pending"
    created: datetime = LONG_AGO
    cloud_id: str = ""
    subnet_id: str = ""


@dataclass(frozen=True)
class PaceRow:
    """How fast the front is, where somebody has said so. ``scale``: of durations. ``rate``: calls a second, 0 for any number;
    ``burst``: calls at once."""

    uid: str = "pace"
    name: str = "pace"
    scale: float = 0.05
    rate: float = 0.0
    burst: int = 100


@dataclass(frozen=True)
class BridgeRow:
    """A private bridge: private LANs of one CIDR, which is its ``uid`` and ``name``, are one network."""

    uid: str
    name: str


@dataclass(frozen=True)
class RouterArm:
    network: str
    address: str = ""
    dhcp: bool = False


@dataclass(frozen=True)
class RouterRow:
    uid: str
    name: str
    zone: str
    type: str = "small"
    group: str = ""
    description: str = ""
    accounting: str = "2"
    arms: tuple[RouterArm, ...] = ()
    state: Literal["pending", "available"] = "pending"
    created: datetime = LONG_AGO
    cloud_id: str = ""


@dataclass(frozen=True)
class AddressRow:
    """An elastic address. ``address`` is empty until the cloud has given one; ``instance``: uid of its owner."""

    uid: str
    zone: str
    name: str = ""
    address: str = ""
    description: str = ""
    instance: str = ""
    cloud_id: str = ""


@dataclass(frozen=True)
class HealthRow:
    """A health check. ``target``: ``TCP:port``, ``ICMP`` and so on; times in seconds."""

    target: str = "ICMP"
    interval: int = 5
    unhealthy: int = 1
    path: str = ""
    codes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairRow:
    """A port of a balancer and what stands behind it. ``members``: uids; ``healthy``: those that answer the check.

    ``filtered``: addresses and CIDRs; ``filter_type``: 1 permits them alone, 2 refuses them; without any: everybody.
    """

    port: int
    instance_port: int
    balancing: int = 1
    protocol: str = "TCP"
    description: str = ""
    health: HealthRow = HealthRow()
    members: tuple[str, ...] = ()
    healthy: tuple[str, ...] = ()
    filter_type: Literal["1", "2"] = "1"
    filtered: tuple[str, ...] = ()
    certificate: str = ""


@dataclass(frozen=True)
class BalancerRow:
    """An L4 balancer. ``vip``: public address; ``inner``: the address behind it, from which members are reached."""

    uid: str
    name: str
    zones: tuple[str, ...] = ()
    pairs: tuple[PairRow, ...] = ()
    volume: int = 10
    accounting: str = "2"
    policy: str = "standard"
    vip: str = ""
    inner: str = ""
    created: datetime = LONG_AGO
    cloud_id: str = ""


@dataclass(frozen=True)
class BalancerArmRow:
    network: str
    address: str = ""
    vip: bool = False
    systems: tuple[str, ...] = ()


@dataclass(frozen=True)
class ElasticBalancerRow:
    uid: str
    name: str
    zone: str
    arms: tuple[BalancerArmRow, ...] = ()
    pairs: tuple[PairRow, ...] = ()
    volume: int = 10
    accounting: str = "2"
    vip: str = ""
    inner: str = ""
    created: datetime = LONG_AGO
    cloud_id: str = ""


@dataclass(frozen=True)
class KeyRow:
    uid: str
    name: str
    fingerprint: str
    public: str
    description: str = ""
    cloud_id: str = ""


@dataclass(frozen=True)
class ImageRow:
    """``uid``: the number by which calls name it."""

    uid: str
    name: str
    cloud_id: str = ""


@dataclass(frozen=True)
class ZoneRow:
    """``uid`` and ``name``: NIFCLOUD's; ``cloud_id``: the availability zone below."""

    uid: str
    name: str
    cloud_id: str


@dataclass(frozen=True)
class CommonNetworkRow:
    """One of the two given networks. ``router_id``: the router that leads from both to the outside."""

    uid: str
    name: str
    cloud_id: str = ""
    subnet_id: str = ""
    router_id: str = ""
    external_id: str = ""


@dataclass(frozen=True)
class WorkRow:
    """What is under way on one object. ``step`` is what comes next; ``due`` and ``began`` are seconds since 1970.

    ``refused``: how often the cloud refused the step; ``why``: its last words.
    """

    kind: str
    uid: str
    verb: str
    step: str = ""
    due: float = 0.0
    began: float = 0.0
    refused: int = 0
    why: str = ""
    wish: dict[str, str] = field(default_factory=dict[str, str])

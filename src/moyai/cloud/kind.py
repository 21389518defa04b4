"""One kind of cloud, as a connected ``Cloud`` names it: the names by which Kubernetes and its users know this kind, and how the
parts inside a cluster log in.

It knows no ``Cloud``. What connects to one is ``cloud.adapter``, which stands on this module and on ``cloud.capabilities``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from moyai.cloud.credentials import Reach

#: In a part's container: here is its configuration file, and beside it what the file names.
LOGIN_FOLDER = "/etc/moyai"
#: On a machine whose start was sent: which one of the cloud it is (``bootstrap.sent_start``).
GUEST_FOLDER = "/var/lib/moyai-guest"


@dataclass(frozen=True)
class VolumeNames:
    """Names of the CSI driver of one kind of cloud: those of the driver that such clouds already have, so that what exists in
    a cluster goes on.

    ``driver``: what StorageClasses and volumes name. ``objects``: begins the names of the driver's own objects in Kubernetes,
    and is the name of the default classes. ``container``: of its pods.
    """

    driver: str
    objects: str
    container: str

    @property
    def zone_key(self) -> str:
        """Label of a Node and key of a topology, beside ``core.ids.ZONE_LABEL``."""
        return f"topology.{self.driver}/zone"

    @property
    def cluster_key(self) -> str:
        """Metadata of every volume and snapshot made: the cluster's name."""
        return f"{self.driver}/cluster"

    @property
    def blank_key(self) -> str:
        """In a volume's context: it was made without content, so that a node may format it whatever its blocks say."""
        return f"{self.driver}/blank"

    @property
    def controller(self) -> str:
        """The Deployment."""
        return f"{self.objects}-controllerplugin"

    @property
    def node(self) -> str:
        """The DaemonSet."""
        return f"{self.objects}-nodeplugin"

    @property
    def default_class(self) -> str:
        """The default StorageClass, and the default VolumeSnapshotClass."""
        return self.objects

    @property
    def secret(self) -> str:
        """Holds the driver's configuration file."""
        return f"{self.objects}-cloud-config"


@dataclass(frozen=True)
class VolumeRules:
    """What is different about the volumes of one kind of cloud. ``step_gb``: sizes are whole multiples. ``per_machine``: so
    many volumes may a machine have, whatever is configured; 0: no such limit. ``snapshots``: whether there are any, and copies.
    ``on_bus``: a machine's kernel has to be asked to look for a volume that was attached, and to let go of it before it is
    detached; and where it shows is told with the attachment."""

    step_gb: int = 1
    per_machine: int = 0
    snapshots: bool = True
    on_bus: bool = False


class Login(Protocol):
    """How the parts inside a cluster log in: what section ``[Global]`` of their configuration file says."""

    @property
    def region(self) -> str: ...
    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log may show; may hold empty texts."""
        ...

    @property
    def files(self) -> Mapping[str, str]:
        """Name → content of the files in ``LOGIN_FOLDER`` that the section names; secrets, maybe."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that a part's process needs to reach the cloud; secrets, maybe."""
        ...

    @property
    def missing(self) -> str:
        """The first required key that the section lacks; empty: none."""
        ...

    def lines(self) -> list[str]:
        """The section, its title first, secrets included; ``Adapter.read_login`` reads it again."""
        ...


class CloudKind(Protocol):
    @property
    def name(self) -> str:
        """What ``--cloud-provider`` of the parts inside a cluster calls this kind of cloud."""
        ...

    @property
    def volume_names(self) -> VolumeNames: ...
    @property
    def sources_of_port(self) -> int:
        """How many addresses besides its own a port may send from, which no cloud reports; 0: none."""
        ...

    @property
    def volume_rules(self) -> VolumeRules: ...
    def volume_type(self, parameters: Mapping[str, str]) -> str:
        """The type of volume that the parameters of a StorageClass ask for; empty: the cloud's default. Raises UsageError for
        parameters that the driver of such clouds does not have."""
        ...

    @property
    def user_data_limit(self) -> int:
        """Bytes of a server's user data, counted after base64."""
        ...

    @property
    def starts_by_script(self) -> bool:
        """Whether user data is a short script, which takes the rest of a machine's start from `up`; otherwise it is a boothook
        of cloud-init, with all that the machine needs."""
        ...

    @property
    def takes_rsa_keys(self) -> bool:
        """Whether key pairs are of RSA alone."""
        ...

    @property
    def needs_tags(self) -> bool:
        """Whether the owner of an object is recorded in the cloud's tags alone, so that a cloud without them can hold no
        cluster."""
        ...

    def cloud_name(self, uid: str, name: str) -> str:
        """What the cloud calls the object that moyai calls ``name``, of the cluster with this UID: the name itself, or one that
        follows from both. Raises UsageError for a name that no object of this kind of cloud can have."""
        ...

    @property
    def guest_folders(self) -> tuple[str, ...]:
        """Folders of a machine that ``Adapter.guest`` reads: the CSI driver's pod on each node has them mounted."""
        ...

    def issued_login(self, *, cloud: str, region: str, url: str, credential_id: str, secret: str, reach: Reach) -> Login:
        """The login with a credential that ``Credentials`` made or handed over. ``cloud``: the user's name for it, for
        messages; ``region``, ``url`` and ``reach`` are ``Account``'s, ``url`` empty where the cloud does not publish it: then
        Terminal.
        """
        ...

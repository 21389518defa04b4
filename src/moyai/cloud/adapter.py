"""What the rest of moyai asks of an adapter before there is a ``Cloud``, and besides it.

An adapter is one kind of cloud: which of the user's clouds it knows, how the parts inside a cluster log in, what a machine
knows of itself, and the names by which Kubernetes and its users know this kind. Each adapter is one object in a package of its
own and one line in ``cloud.factory``. Importing the package sends nothing and imports no client library of the cloud.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from moyai.cloud.capabilities import Cloud, Guest
from moyai.core.errors import UsageError


class UnknownCloud(UsageError):
    """The adapter knows no cloud of this name. The hint says which clouds it knows, and where it looks for them."""


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


class Login(Protocol):
    """How the parts inside a cluster log in: what section ``[Global]`` of their configuration file says."""

    @property
    def region(self) -> str: ...
    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log may show; may hold empty texts."""
        ...

    @property
    def missing(self) -> str:
        """The first required key that the section lacks; empty: none."""
        ...

    def lines(self) -> list[str]:
        """The section, its title first, secrets included; ``Adapter.read_login`` reads it again."""
        ...

    def connect(self) -> Cloud:
        """The cloud; nothing is sent before the first call. Raises UsageError where something is missing or contradictory."""
        ...


class Adapter(Protocol):
    @property
    def name(self) -> str:
        """What ``--cloud-provider`` of the parts inside a cluster calls this kind of cloud."""
        ...

    @property
    def volume_names(self) -> VolumeNames: ...
    @property
    def user_data_limit(self) -> int:
        """Bytes of a server's user data, counted after base64."""
        ...

    @property
    def login_type(self) -> type[Any]:
        """The dataclass whose fields are the keys of section ``[Global]``, and whose defaults are theirs."""
        ...

    @property
    def login_purpose(self) -> str:
        """Sentences for the reference: with what one logs in."""
        ...

    @property
    def login_meanings(self) -> Mapping[str, str]:
        """Field of ``login_type`` → its meaning, for the reference."""
        ...

    def load(self) -> None:
        """Import what ``connect`` would import: for a process that has something else to wait for meanwhile."""
        ...

    def connect(self, name: str | None) -> Cloud:
        """The cloud that the user calls ``name`` (None: the one that the user's configuration chooses).

        Nothing is sent before the first call. Raises UnknownCloud where this adapter knows no such cloud, UsageError where its
        entry is not complete.
        """
        ...

    def read_login(self, section: Mapping[str, str | None]) -> Login:
        """``section``: key → value as written, of ``[Global]``. Raises UsageError for a value of the wrong type."""
        ...

    def issued_login(self, *, cloud: str, region: str, url: str, credential_id: str, secret: str) -> Login:
        """The login with a credential that ``Credentials.create_credential`` made. ``cloud``: the user's name for it, for
        messages; ``region`` and ``url`` are ``Account``'s, ``url`` empty where the cloud does not publish it: then Terminal.
        """
        ...

    @property
    def guest_folders(self) -> tuple[str, ...]:
        """Folders of a machine that ``guest`` reads: the CSI driver's pod on each node has them mounted."""
        ...

    def guest(self) -> Guest:
        """What this machine knows of itself. Asks nothing yet."""
        ...

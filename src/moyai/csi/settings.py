"""cloud.conf as the CSI driver reads it: ``[Global]`` (the login), ``[BlockStorage]`` as Cinder CSI has it, ``[Moyai]``."""

from __future__ import annotations

from dataclasses import dataclass, field

from moyai.cloud.adapter import Adapter
from moyai.cloud.config_file import LOGIN_SECTION, parse_section, read_sections, write_section
from moyai.cloud.kind import Login
from moyai.core.errors import UsageError

_MOST_VOLUMES = 256


@dataclass(frozen=True)
class BlockStorageConfig:
    """``ignore_volume_az``: every machine reaches every volume, whatever the zones are called. ``rescan_on_resize``: nodes ask
    the kernel to look at a disk's size again before they grow its file system."""

    ignore_volume_az: bool = False
    node_volume_attach_limit: int = _MOST_VOLUMES
    rescan_on_resize: bool = False


@dataclass(frozen=True)
class DriverConfig:
    """``cluster_uid`` marks what belongs to the cluster."""

    cluster_uid: str = ""


@dataclass(frozen=True)
class CsiConfig:
    cloud: Login
    storage: BlockStorageConfig = field(default_factory=BlockStorageConfig)
    moyai: DriverConfig = field(default_factory=DriverConfig)


def read_csi_config(text: str, adapter: Adapter) -> CsiConfig:
    """Parse the file's text. Raises UsageError that names section, key and what would be right."""
    raw = read_sections(text)
    config = CsiConfig(
        cloud=adapter.read_login(raw.get(LOGIN_SECTION, {})),
        storage=parse_section("BlockStorage", BlockStorageConfig, raw=raw.get("BlockStorage", {})),
        moyai=parse_section("Moyai", DriverConfig, raw=raw.get("Moyai", {})),
    )
    if not 1 <= config.storage.node_volume_attach_limit <= _MOST_VOLUMES:
        raise UsageError(
            f"cloud config: [BlockStorage] node-volume-attach-limit = {config.storage.node_volume_attach_limit}",
            hint=f"between 1 and {_MOST_VOLUMES}",
        )
    return config


def write_csi_config(config: CsiConfig) -> str:
    """The file's text: what differs from the defaults."""
    parts = (("[BlockStorage]", config.storage), ("[Moyai]", config.moyai))
    lines = [*config.cloud.lines(), *(line for title, part in parts for line in write_section(title, part))]
    return "\n".join(lines) + "\n"

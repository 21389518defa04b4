# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
# (pyright takes this folder for OpenStack's package of the same name)
"""Cinder's driver: a volume is a sparse file; its zone's back end is a folder.

Nova's driver of the same host turns the file into a block device, so nothing is exported. A change appears under its name
only when it is complete (written beside, then renamed). Snapshots are full copies (sparse, sharing blocks where the file
system can): they may be deleted in any order.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cinder import exception, interface
from cinder.image import image_utils
from cinder.volume import configuration, driver, volume_utils
from oslo_config import cfg
from oslo_utils import units

from moyai.linux import files, loop
from moyai.linux.process import ProcessError, run

OPTIONS = [cfg.StrOpt("moyai_volumes_dir", help="The folder that holds this back end's volumes, one file each.")]
cfg.CONF.register_opts(OPTIONS, group=configuration.SHARED_CONF_GROUP)


@interface.volumedriver
class FileDriver(driver.VolumeDriver):
    VERSION = "1.0"
    CI_WIKI_NAME = "none"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(OPTIONS)

    def do_setup(self, context):
        folder = self.configuration.safe_get("moyai_volumes_dir")
        if not folder:
            raise exception.InvalidConfigurationValue(option="moyai_volumes_dir", value=folder)
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def check_for_setup_error(self):
        if not os.access(self._folder, os.W_OK):
            raise exception.VolumeBackendAPIException(data=f"{self._folder} cannot be written")

    def _file(self, named) -> Path:
        return self._folder / named.name

    # ---- volumes

    def create_volume(self, volume):
        self._fill(volume, None)

    def create_volume_from_snapshot(self, volume, snapshot):
        self._fill(volume, self._file(snapshot))

    def create_cloned_volume(self, volume, src_vref):
        self._fill(volume, self._file(src_vref))

    def create_snapshot(self, snapshot):
        self._copy(self._file(snapshot.volume), self._file(snapshot))

    def delete_volume(self, volume):
        file = self._file(volume)
        loop.detach(file)  # a device left by a crash would keep the blocks
        file.unlink(missing_ok=True)

    def delete_snapshot(self, snapshot):
        self._file(snapshot).unlink(missing_ok=True)

    def extend_volume(self, volume, new_size):
        os.truncate(self._file(volume), new_size * units.Gi)

    def retype(self, context, volume, new_type, diff, host):
        """All types of a back end are the same file: only what Cinder and Nova make of the type changes."""
        if host["host"] != volume.host:
            return False, None
        changed = diff.get("extra_specs", {}).get("multiattach")
        return True, {"multiattach": "true" in str(changed[1]).lower()} if changed else None

    def revert_to_snapshot(self, context, volume, snapshot):
        self._fill(volume, self._file(snapshot))

    def _fill(self, volume, source: Path | None) -> None:
        self._copy(source, self._file(volume), size=volume.size * units.Gi)

    def _copy(self, source: Path | None, target: Path, *, size: int | None = None) -> None:
        new = target.with_suffix(".new")
        try:
            if source is None:
                new.touch(mode=0o600)
            else:
                run(["cp", "--sparse=always", "--reflink=auto", source, new])
            if size is not None:
                os.truncate(new, size)
            # Cinder's database, which says that the volume is there, survives a loss of power: so must the file
            files.sync(new)
            files.rename_durably(new, target)
        except (OSError, ProcessError) as error:
            new.unlink(missing_ok=True)
            raise exception.VolumeBackendAPIException(data=f"{target.name}: {error}") from error

    # ---- images

    def copy_image_to_volume(self, context, volume, image_service, image_id, disable_sparse=False):
        image_utils.fetch_to_raw(
            context, image_service, image_id, str(self._file(volume)),
            self.configuration.volume_dd_blocksize, size=volume.size, run_as_root=False,
            disable_sparse=disable_sparse,
        )  # fmt: skip
        os.truncate(self._file(volume), volume.size * units.Gi)

    def copy_volume_to_image(self, context, volume, image_service, image_meta):
        volume_utils.upload_volume(context, image_service, image_meta, str(self._file(volume)), volume, run_as_root=False)

    def clone_image(self, context, volume, image_location, image_meta, image_service):
        return {}, False

    # ---- attaching: the file itself is handed over, Nova's driver makes the device

    def ensure_export(self, context, volume):
        pass

    def create_export(self, context, volume, connector):
        pass

    def remove_export(self, context, volume):
        pass

    def initialize_connection(self, volume, connector):
        return {"driver_volume_type": "local", "data": {"device_path": str(self._file(volume))}}

    def terminate_connection(self, volume, connector, **kwargs):
        pass

    # ---- capacity

    def _update_volume_stats(self):
        usage = shutil.disk_usage(self._folder)
        promised = sum(file.stat().st_size for file in self._folder.iterdir() if file.is_file())
        pool = {
            "pool_name": self.configuration.safe_get("volume_backend_name") or "files",
            "total_capacity_gb": round(usage.total / units.Gi, 2),
            "free_capacity_gb": round(usage.free / units.Gi, 2),
            "provisioned_capacity_gb": round(promised / units.Gi, 2),
            "reserved_percentage": self.configuration.safe_get("reserved_percentage") or 0,
            "max_over_subscription_ratio": self.configuration.safe_get("max_over_subscription_ratio") or "20.0",
            "thin_provisioning_support": True,
            "thick_provisioning_support": False,
            "multiattach": True,
        }
        self._stats = {
            "volume_backend_name": self.configuration.safe_get("volume_backend_name"),
            "vendor_name": "moyai",
            "driver_version": self.VERSION,
            "storage_protocol": "file",
            "pools": [pool],
        }

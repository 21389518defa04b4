"""The driver's names that are the same on every cloud. The others are in ``cloud.kind.VolumeNames``."""

from __future__ import annotations

#: Parameters of a StorageClass; a VolumeAttributesClass has the type alone.
TYPE, AVAILABILITY = "type", "availability"
#: In the publish context of an attached volume: the device's path on the node.
DEVICE_PATH = "DevicePath"
#: In the publish context of a volume for readers: ``true`` where the machine was the only one that had it.
ALONE = "moyai.dev/alone"
#: What the side-cars add to the parameters: claim and volume, for the metadata.
PASSED_ON = {
    "csi.storage.k8s.io/pvc/name": "csi.storage.k8s.io/pvc/name",
    "csi.storage.k8s.io/pvc/namespace": "csi.storage.k8s.io/pvc/namespace",
    "csi.storage.k8s.io/pv/name": "csi.storage.k8s.io/pv/name",
    "csi.storage.k8s.io/volumesnapshot/name": "csi.storage.k8s.io/volumesnapshot/name",
    "csi.storage.k8s.io/volumesnapshot/namespace": "csi.storage.k8s.io/volumesnapshot/namespace",
    "csi.storage.k8s.io/volumesnapshotcontent/name": "csi.storage.k8s.io/volumesnapshotcontent/name",
}
EXT4, XFS = "ext4", "xfs"
FILE_SYSTEMS = (EXT4, XFS)

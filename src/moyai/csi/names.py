"""The names by which Kubernetes, users and the cloud know this driver: those of Cinder CSI, so that what exists goes on."""

from __future__ import annotations

DRIVER = "cinder.csi.openstack.org"
ZONE_KEY = f"topology.{DRIVER}/zone"
#: Metadata of every volume and snapshot made: the cluster's name, as Cinder CSI writes it.
CLUSTER_KEY = f"{DRIVER}/cluster"
#: Parameters of a StorageClass.
TYPE, AVAILABILITY = "type", "availability"
#: In a volume's context: the driver created the volume without content. A node may format it whatever its blocks contain.
BLANK = f"{DRIVER}/blank"
#: In the publish context of an attached volume: the device's path on the node.
DEVICE_PATH = "DevicePath"
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

"""The CSI driver for OpenStack Cinder: a claim becomes a disk, and the disk follows its pod."""

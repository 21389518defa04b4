"""The CSI driver: a claim becomes a disk, and the disk follows its pod."""

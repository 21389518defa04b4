"""The driver's node service: which machine this is, its disks, staging and publishing of volumes."""

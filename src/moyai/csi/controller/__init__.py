"""The driver's controller service: volumes and snapshots made, attached, grown and removed in the cloud."""

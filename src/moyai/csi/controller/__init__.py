"""The driver's controller service: it creates, attaches, extends and deletes volumes and snapshots in the cloud."""

"""A cluster from its spec to its end: up, upgrade, status, backup, restore, down."""

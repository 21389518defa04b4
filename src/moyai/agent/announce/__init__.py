"""Addresses of Services that this node announces in its own network: one owner an address, by a Lease."""

"""Egress addresses of this node: the controller."""

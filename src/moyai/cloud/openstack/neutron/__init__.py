"""Neutron: networks, routers, ports, security groups, floating IPs."""

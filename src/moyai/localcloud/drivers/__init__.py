"""Drivers loaded by Nova, Cinder and Octavia: real machines, real disks, real load balancers.

They run in OpenStack's own environment and import nothing of moyai but moyai.linux.
"""

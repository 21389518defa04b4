"""Drivers loaded by Nova, Cinder and Octavia: real machines, real disks, real load balancers. One folder for each service.

They run in OpenStack's own environment and import nothing of moyai but ``moyai.linux``. That is a wall: classes here have
the names that the OpenStack service gives to them (``Listener``, ``Pool``, ``Member``), also where another part of moyai has a
class of that name, since neither side can import the other.
"""

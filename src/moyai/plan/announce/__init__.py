"""Addresses of Services that nodes announce themselves: which address a Service gets, and which nodes may announce it.

Pure; shared by the cloud controller manager, which gives addresses, and by the nodes' agents, which announce them.
"""

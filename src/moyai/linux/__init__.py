"""The Linux kernel and its tools: processes, cgroups, namespaces, loop devices, netlink, HAProxy, FRR.

OpenStack's processes load it too, so nothing here imports another part of moyai. Importing a module needs the standard library
alone; a call of ``netlink`` and of ``network_facts`` imports pyroute2, which OpenStack's environment does not have.
"""

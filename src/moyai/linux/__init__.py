"""The Linux kernel and its tools: processes, cgroups, namespaces, loop devices, HAProxy. Standard library only.

Loaded also inside OpenStack's environment, so nothing here imports another part of moyai.
"""

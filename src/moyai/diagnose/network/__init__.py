"""How the network of a living cluster is: what its nodes' kernels have, which ways work, and the hops of a packet.

``probes`` puts programs on the nodes and takes them away again; ``gather`` reads the API, the cloud and the probes. Everything
else is pure: facts in, findings out.
"""

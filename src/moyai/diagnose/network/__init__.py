"""The state of a living cluster's network: what its nodes' kernels have, which ways work, and the hops of a packet.

``probe_pods`` runs programs on the nodes and removes them again; ``read_network`` reads the API, the cloud and the probes.
Everything else is pure: facts in, findings out.
"""

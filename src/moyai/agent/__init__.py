"""The agent: one process on every node, which brings the node's kernel to what the objects of Kubernetes ask for."""

"""BGP on this node: FRR is configured, and the kernel has a route for each prefix of a Service that the node announces."""

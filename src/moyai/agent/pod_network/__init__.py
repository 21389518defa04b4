"""The pod network of a node: its kernel holds what ``plan.node_network`` wants of it."""

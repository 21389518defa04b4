"""The cloud controller manager: nodes, node lifecycle, routes, services."""

"""The load balancer of a Service of type LoadBalancer: its settings, the desired tree, the changes that lead there. Pure."""

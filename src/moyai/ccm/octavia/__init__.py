"""Services of type LoadBalancer, served by the load balancers of the cloud."""

"""Services whose addresses nodes announce: addresses of pools, the ports that they need, and what is said about pools."""

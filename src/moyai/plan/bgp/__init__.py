"""BGP: which sessions a node has, what it tells each router, and the commands of FRR that bring both about. Pure.

Always holds: a route that comes or goes changes nothing in FRR's configuration. A Service's prefix is a route of the kernel,
and the route's metric says to whom and with which attributes the prefix is announced.
"""

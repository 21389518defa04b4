"""The local cloud: a real OpenStack on this machine, in one private namespace."""

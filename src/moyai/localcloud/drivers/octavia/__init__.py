"""Octavia's provider `moyai`: the driver in octavia-api (``provider``) and the daemon that does the work (``agent``)."""

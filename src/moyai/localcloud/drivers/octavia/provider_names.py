"""The names under which Octavia's API offers the provider: ``moyai``, and those that tools and flavors for real clouds name.

A load balancer keeps the name that its user gave. ``amphora`` is Octavia's own driver, ``octavia`` its older name; both are
enabled in every Octavia that nobody configured otherwise.
"""

MOYAI = "moyai"
ALIASES = ("amphora", "octavia")
ALL = (MOYAI, *ALIASES)

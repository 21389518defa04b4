"""Network policies as sets, maps and chains of nftables, by increments.

The planner is an index in memory. It reads and changes nothing outside of itself: no clock, no kernel, no API.
``index`` takes namespaces, pods and policies one by one and keeps the desired ``ruleset``; ``nft_commands`` is its text for
the kernel. Always holds: what a change costs depends on what it touches, never on how many policies and pods there are.
"""

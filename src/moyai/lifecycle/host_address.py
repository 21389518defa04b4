"""Under which address this host sends to others."""

from __future__ import annotations

import socket

#: Any port: nothing is sent to it.
_PORT = 9


def towards(address: str) -> str:
    """This host's own IPv4 address on the way to ``address``; empty where no route leads there. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # a datagram socket that is connected has chosen its route, and sends only what it is given
            probe.connect((address, _PORT))
            return str(probe.getsockname()[0])
        except OSError:
            return ""

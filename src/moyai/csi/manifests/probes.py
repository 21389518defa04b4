"""How the kubelet asks both parts of the driver for their health."""

from __future__ import annotations

from typing import Any

#: Where the two parts of the driver serve their health, on the loopback of their machine (both may run on one).
CONTROLLER_HEALTH, NODE_HEALTH = 9808, 9809


def probes(port: int) -> dict[str, Any]:
    def probe(**when: int) -> dict[str, Any]:
        return {
            "httpGet": {"host": "127.0.0.1", "port": port, "scheme": "HTTP", "path": "/healthz"},
            "timeoutSeconds": 5,
            **when,
        }

    return {
        # a startup probe runs each second only until its first success; a readiness probe would run for ever without a use
        "startupProbe": probe(periodSeconds=1, failureThreshold=300),
        "livenessProbe": probe(periodSeconds=30, failureThreshold=4),
    }

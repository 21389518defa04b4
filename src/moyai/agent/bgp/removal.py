"""What an agent without BGP does on a node whose pods were reached by BGP: it takes the routes away that FRR has left.

Always holds: only routes of a BGP daemon to parts of the pod range go. The routes of the mode that followed are in the kernel
already, and go first there: an agent of the stage before has made them.
"""

from __future__ import annotations

import asyncio

from moyai.core.errors import Retriable
from moyai.linux.kernel_routes import drop_bgp_routes
from moyai.runtime.controllers import ControllerSetup, Part
from moyai.runtime.reconciler import DONE, Result


def bgp_removal(pods: str, *, namespace: str | None = None) -> ControllerSetup:
    """``pods``: the range of all pods. Until it has succeeded the process is not ready. ``namespace``: of the kernel's network,
    None: the process's own."""
    lacks = "routes that an earlier agent got by BGP have not been removed yet"

    async def reconcile(_key: str) -> Result:
        nonlocal lacks
        try:
            await asyncio.to_thread(drop_bgp_routes, pods, namespace=namespace)
        except OSError as error:
            raise Retriable(f"the kernel refuses: {error}") from error
        lacks = ""
        return DONE

    part = Part("bgp-removal", reconcile, watch=lambda queue: queue.add("removal"))
    return ControllerSetup(part, ready={"routes by BGP": lambda: lacks})

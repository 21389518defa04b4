"""What an agent does on a node whose pod network is not its own any more: it takes its routes and its tunnel away.

Always holds: only routes with the agent's protocol number and devices with its mark go, each time the agent starts.
"""

from __future__ import annotations

from moyai.agent.pod_network.kernel import apply, observe
from moyai.core.errors import Retriable
from moyai.linux.netlink import Netlink
from moyai.plan.node_network import NodeNetwork, Uplink, difference
from moyai.runtime.controllers import ControllerSetup, Part
from moyai.runtime.reconciler import DONE, Result


def pod_network_removal(namespace: str | None = None) -> ControllerSetup:
    """Until it has succeeded the process is not ready. ``namespace``: of the kernel's network, None: the process's own."""
    lacks = "what an earlier agent did for the pod network has not been removed yet"

    async def reconcile(_key: str) -> Result:
        nonlocal lacks
        try:
            async with Netlink.open(namespace) as netlink:
                found, indices = await observe(netlink, tunnel=None, uplink=Uplink("", 0, 0))
                await apply(netlink, difference(NodeNetwork(), found), indices=indices)
        except OSError as error:
            raise Retriable(f"the kernel refuses: {error}") from error
        lacks = ""
        return DONE

    part = Part("pod-network-removal", reconcile, watch=lambda queue: queue.add("removal"))
    return ControllerSetup(part, ready={"pod network": lambda: lacks})

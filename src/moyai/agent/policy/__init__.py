"""Network policies of the pods on this node: informers feed the planner, the kernel gets its differences."""

from moyai.agent.policy.boot_gate import BootGate
from moyai.agent.policy.controller import PolicyController, removal

__all__ = ["BootGate", "PolicyController", "removal"]

"""Network policies of the pods on this node: informers feed the planner, the kernel gets its differences."""

from moyai.agent.policy.controller import PolicyController, take_away

__all__ = ["PolicyController", "take_away"]

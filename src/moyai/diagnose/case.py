"""One diagnosis under way: the facts, the pod's state in a word, and how an answer is put.

Always holds: every answer is one sentence that begins with the pod's name and state.
"""

from __future__ import annotations

from dataclasses import dataclass

from moyai.diagnose.pod_facts import Explanation, Facts, NodeVerdict
from moyai.kube.objects import Pod


@dataclass(frozen=True)
class Case:
    """``state``: what the pod is instead of running."""

    facts: Facts
    state: str

    @property
    def pod(self) -> Pod:
        return self.facts.pod

    def say(
        self,
        cause: str,
        why: str,
        *help_: str,
        volume: str = "",
        zone: str = "",
        nodes: tuple[NodeVerdict, ...] = (),
    ) -> Explanation:
        """``cause``: a word for programs. ``why``: the rest of the sentence. ``help_``: what would help, most likely first."""
        summary = f"Pod {self.pod.key} is {self.state}: {why}."
        return Explanation(self.pod.key, self.state, cause, summary, help_, volume, zone, nodes)


def line(text: str) -> str:
    """Somebody else's message as a part of a sentence."""
    return " ".join(text.split()).rstrip(".")

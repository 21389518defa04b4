"""Why a pod does not run, in a sentence, with what would help: the order in which causes are looked for.

Pure. Always holds: the first cause in the pod's own order of life is reported (claims, place, disks, images, containers,
probes), and nothing is guessed: where no rule finds a reason, the answer says so, with the scheduler's words and the last
events.
"""

from __future__ import annotations

from dataclasses import replace

from moyai.diagnose.advice import comes_back
from moyai.diagnose.attaching import attaching
from moyai.diagnose.case import Case, line
from moyai.diagnose.claims import claims
from moyai.diagnose.containers import containers
from moyai.diagnose.pod_facts import Explanation, Facts
from moyai.diagnose.unplaced import unplaced
from moyai.kube.objects import Pod


def explain(facts: Facts) -> Explanation:
    """The first cause that is found, with the last events where the pod does not run."""
    pod = facts.pod
    state = "Terminating" if pod.deleting else "not ready" if pod.phase == "Running" and not pod.ready else pod.phase
    found = _life(Case(facts, state))
    return found if found.cause in ("runs", "done") else replace(found, events=facts.events[-5:])


def _life(case: Case) -> Explanation:
    pod = case.pod
    if pod.phase == "Succeeded":
        return case.say("done", "its containers have done their work")
    if pod.deleting:
        return _leaving(case)
    if pod.phase == "Failed":
        return case.say("failed", _ended(pod) or "the API gives no reason")
    if pod.phase == "Running" and pod.ready:
        return case.say("runs", f"it runs on {pod.node} and is ready")
    return claims(case) or (_placed(case) if pod.node else unplaced(case))


def _ended(pod: Pod) -> str:
    own = next((one for one in pod.containers if one.ended and one.ended != "Completed"), None)
    words = [pod.reason, pod.message] if pod.reason else []
    if own:
        words = [*words, f"container {own.name} ended with {own.ended}", own.message]
    return ": ".join(word.rstrip(".") for word in words if word)


def _leaving(case: Case) -> Explanation:
    node = next((one for one in case.facts.nodes if one.name == case.pod.node), None)
    if case.pod.node and node is None:
        why = f"its node {case.pod.node} is gone, Kubernetes forgets the pod within a minute"
        return case.say("node-gone", why)
    if node is not None and not node.ready:
        why = f"its node {node.name} does not answer, so nobody can say that its containers have ended"
        return case.say("node-not-ready", why, _restart(node.name))
    return case.say("terminating", "it was deleted, and its containers have not ended yet")


def _placed(case: Case) -> Explanation:
    pod = case.pod
    node = next((one for one in case.facts.nodes if one.name == pod.node), None)
    if node is None:
        missing = [one for one in case.facts.missing if one.name == pod.node]
        why = f"its node {pod.node} is gone, and Kubernetes deletes the pod within a minute"
        return case.say("node-not-ready", why, *comes_back(missing))
    if not node.ready:
        return case.say("node-not-ready", f"its node {pod.node} does not answer", _restart(pod.node))
    return attaching(case) or containers(case) or _last(case)


def _restart(node: str) -> str:
    return f"`moyai status` says what the machine of node {node} does, and `moyai up` starts or restarts it"


def _last(case: Case) -> Explanation:
    warning = next((one for one in reversed(case.facts.events) if one.kind == "Warning"), None)
    if warning is not None:
        return case.say("event", f"the last warning is {warning.reason}: {line(warning.message)}")
    if any(one.starting for one in case.pod.containers):
        return case.say("starting", f"its containers are being made on {case.pod.node}, and nothing has gone wrong so far")
    return case.say("unknown", "no reason was found; the last events are all that is known")

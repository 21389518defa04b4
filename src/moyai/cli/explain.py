"""``moyai explain``: why a pod does not run, in a sentence, and what would help."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from moyai.cli.terminal import OUTPUT, say, say_lines
from moyai.core.errors import UsageError
from moyai.spec.kubernetes import is_object_name

if TYPE_CHECKING:
    from moyai.diagnose.pod_facts import Explanation


@click.command()
@click.argument("pod")
@click.argument("cluster", required=False, metavar="[CLUSTER|SPEC]")
@click.option("--namespace", "-n", default="", help="Namespace of the pod.  [default: default]")
@OUTPUT
def explain(pod: str, cluster: str | None, *, namespace: str, output: str) -> None:
    """Say why POD (or NAMESPACE/POD) does not run: its disks and their zone, the nodes, and what would help."""
    from moyai.cli.cluster import connect, recorded
    from moyai.diagnose.gather import read

    given, name = _split(pod)
    if given and namespace and given != namespace:
        raise UsageError(f"namespace {namespace} and pod {pod}: two namespaces", hint="name one")
    record = recorded(cluster)
    found = read(record, name, namespace=given or namespace or "default", cloud=lambda: connect(record.cloud))
    say_lines(_lines(found)) if output == "text" else say(json.dumps(asdict(found), indent=1))


def _split(pod: str) -> tuple[str, str]:
    """(namespace or empty, name) of ``NAME``, ``pod/NAME`` as kubectl prints it, or ``NAMESPACE/NAME``."""
    space, slash, name = pod.rpartition("/")
    if space in ("pod", "pods"):
        space = ""
    if not is_object_name(name) or (slash and space and not is_object_name(space)):
        raise UsageError(f"{pod!r} is no pod's name", hint="should be NAME, pod/NAME or NAMESPACE/NAME")
    return space, name


def _lines(found: Explanation) -> list[str]:
    lines = [found.summary]
    lines += [f"  what helps: {found.help[0]}"] if found.help else []
    lines += [f"     or else: {text}" for text in found.help[1:]]
    if found.cause in ("unknown", "event", "mount-failed", "starting"):
        lines += [f"  {event.time}  {event.reason}: {' '.join(event.message.split())}" for event in found.events]
    return lines

"""What the probes of all nodes found, as failures that a user can act on. Pure.

Always holds: every pair of nodes is in the counts, also one that could not be tried; each failure is one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from moyai.kube.objects.meta import number, part, text
from moyai.kube.resources import Json

#: What is tried, in the order of the report, each with its name for people.
TRIES = {
    "pods": "pod to pod",
    "services": "pod to Service",
    "sizes": "full-size packets",
    "paths": "node to node",
    "names": "DNS",
}


@dataclass(frozen=True)
class Failure:
    """``kind``: of ``TRIES``, or ``probe`` for a node without one. ``target``: a node, empty where the DNS is meant."""

    kind: str
    source: str
    target: str
    why: str
    hint: str = ""

    @property
    def text(self) -> str:
        way = f"{self.source} → {self.target}" if self.target else self.source
        hint = f"; {self.hint}" if self.hint else ""
        return f"{TRIES.get(self.kind, self.kind)}: {way}: {self.why}{hint}"


@dataclass(frozen=True)
class CheckReport:
    """``tried``: kind → how many ways there are. ``working``: how many of them work, between nodes that have a probe. ``mtu``:
    node → that of its pods, in bytes. ``links``: node → that of its link to the others. ``paths``: node → other node → the
    largest packet that gets there, as measured, 0 for none. ``seconds``: that the check took."""

    nodes: tuple[str, ...] = ()
    tried: Mapping[str, int] = field(default_factory=dict[str, int])
    working: Mapping[str, int] = field(default_factory=dict[str, int])
    mtu: Mapping[str, int] = field(default_factory=dict[str, int])
    links: Mapping[str, int] = field(default_factory=dict[str, int])
    paths: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0

    def data(self) -> dict[str, Any]:
        return {**asdict(self), "ok": not self.failures, "seconds": round(self.seconds, 1)}


def report(
    nodes: Sequence[str], found: Mapping[str, Json], *, missing: Mapping[str, str], measured: Mapping[str, Json] | None = None
) -> CheckReport:
    """``found``: node → what its probe printed. ``missing``: node → why it has no probe. ``measured``: node → what the probe of
    its paths printed."""
    measured = measured or {}
    failures = [Failure("probe", node, "", f"not checked: {why}") for node, why in sorted(missing.items())]
    pairs = [(one, other) for one in nodes for other in nodes if one != other]
    broken = {(one, other) for one, other in pairs if one in found and text(part(found[one], "pods"), other)}
    for one, other in pairs:
        if (one, other) in broken:
            back = other in found and (other, one) not in broken
            hint = "the other direction works" if back else ""
            failures.append(Failure("pods", one, other, text(part(found[one], "pods"), other), hint))
    failures += _services(nodes, found, broken=broken)
    failures += _sizes(pairs, found, broken=broken)
    failures += _paths(pairs, measured)
    failures += _names(nodes, found)
    tried = {"pods": len(pairs), "services": len(nodes) ** 2, "sizes": len(pairs), "paths": len(pairs), "names": len(nodes)}
    mtu = {node: number(one, "mtu") for node, one in found.items()}
    links = {node: number(one, "link") for node, one in measured.items()}
    paths = {one: {other: number(part(measured[one], "paths"), other) for other in nodes if other != one} for one in measured}
    working = {**_working(nodes, found), "paths": sum(size >= links[one] > 0 for one in paths for size in paths[one].values())}
    return CheckReport(tuple(nodes), tried=tried, working=working, mtu=mtu, links=links, paths=paths, failures=tuple(failures))


def _working(nodes: Sequence[str], found: Mapping[str, Json]) -> dict[str, int]:
    def works(kind: str, one: str, *, other: str) -> bool:
        answers = part(found[one], kind)
        return other in answers and not text(answers, other)

    def fits(one: str, other: str) -> bool:
        result = part(found[one], "sizes", other)
        enough = number(result, "passes") >= number(found[one], "mtu") > 0
        return works("pods", one, other=other) and enough and not text(result, "over")

    ways = [(one, other) for one in nodes if one in found for other in nodes if other in found]
    return {
        "pods": sum(one != other and works("pods", one, other=other) for one, other in ways),
        "services": sum(works("services", one, other=other) for one, other in ways),
        "sizes": sum(one != other and fits(one, other) for one, other in ways),
        "names": sum(not text(found[one], "names") for one in nodes if one in found),
    }


def _services(nodes: Sequence[str], found: Mapping[str, Json], *, broken: set[tuple[str, str]]) -> Iterator[Failure]:
    for one in nodes:
        if one not in found:
            continue
        failed = {other: why for other in nodes if (why := text(part(found[one], "services"), other))}
        for other, why in failed.items():
            if (one, other) in broken:
                hint = "pods of the two nodes do not reach each other either"
            elif len(failed) == len(nodes):
                hint = f"does kube-proxy run on {one}?"
            else:
                hint = f"the pod itself is reached: does kube-proxy on {one} know the Service?"
            yield Failure("services", one, other, why, hint)


def _sizes(pairs: Sequence[tuple[str, str]], found: Mapping[str, Json], *, broken: set[tuple[str, str]]) -> Iterator[Failure]:
    for one, other in pairs:
        if one not in found or (one, other) in broken:
            continue
        mtu, result = number(found[one], "mtu"), part(found[one], "sizes", other)
        passes, over = number(result, "passes"), text(result, "over")
        far = number(found.get(other, {}), "mtu", default=mtu)
        if 0 < passes < mtu:
            why = f"packets of {passes} bytes pass at most, pods of {one} send {mtu}"
            hint = (
                f"pods of {other} have an MTU of {far}"
                if far < mtu
                else "the way between the nodes carries less than pods think"
            )
            yield Failure("sizes", one, other, why, hint)
        elif not passes:
            yield Failure(
                "sizes", one, other, "no UDP packet comes back, TCP does", "does something between the nodes drop UDP?"
            )
        elif over:
            yield Failure("sizes", one, other, f"a packet that is too large is not refused: {over}")


def _paths(pairs: Sequence[tuple[str, str]], measured: Mapping[str, Json]) -> Iterator[Failure]:
    for one, other in pairs:
        if one not in measured:
            continue
        size, link = number(part(measured[one], "paths"), other), number(measured[one], "link")
        if not size:
            yield Failure("paths", one, other, "no answer to ICMP", "do the security groups let nodes ask each other?")
        elif size < link:
            hint = "the network between them carries less than their links say: set the network's MTU in the cloud"
            yield Failure("paths", one, other, f"packets of {size} bytes pass at most, the link says {link}", hint)


def _names(nodes: Sequence[str], found: Mapping[str, Json]) -> Iterator[Failure]:
    failed = {node: why for node in nodes if node in found and (why := text(found[node], "names"))}
    for node, why in failed.items():
        every = len(failed) == len(found)
        hint = "`moyai kubectl -n kube-system get pods -l k8s-app=kube-dns` shows the name servers" if every else ""
        yield Failure("names", node, "", why, hint)

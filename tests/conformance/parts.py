"""The parts in which Kubernetes' own tests run, and which tests belong to each: all pure.

Parts of one suite share results: a test that ran in ``quick`` need not run in ``conformance`` again. The storage suites are the
same tests with another StorageClass, so each is a suite of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: Tests with one of these labels change nodes or take all of the cluster, so that nothing may run beside them.
ALONE = frozenset({"Serial", "Slow", "Disruptive"})
#: A pattern longer than this is split: Linux allows 128 KiB in one argument.
_LONGEST_PATTERN = 64 << 10
#: One process writes another log than several do (`log`).
LEAST_PROCESSES = 2
#: What ginkgo puts before a test's name when it compares it with a pattern.
_SUITE = "Kubernetes e2e suite"
_SPECIAL = re.compile(r"[.*+?^$|(){}\[\]\\]")


@dataclass(frozen=True)
class Spec:
    """One test, as ginkgo lists it. ``name``: the whole text that identifies it."""

    name: str
    labels: frozenset[str]


@dataclass(frozen=True)
class Part:
    """``suite``: what its results belong to. ``processes``: how many tests run at once. ``words``: more options of e2e.test."""

    name: str
    title: str
    suite: str
    processes: int
    chosen: Callable[[Spec], bool]
    words: Sequence[str] = ()


def read_specs(report: Any) -> list[Spec]:
    """The tests in a JSON report of a dry run of e2e.test."""
    found: dict[str, Spec] = {}
    for one in report[0]["SpecReports"]:
        if one["LeafNodeType"] != "It":
            continue
        texts = [*(one["ContainerHierarchyTexts"] or ()), one["LeafNodeText"]]
        labels = [
            *(label for group in one["ContainerHierarchyLabels"] or () for label in group or ()),
            *(one["LeafNodeLabels"] or ()),
        ]
        spec = Spec(" ".join(texts), frozenset(labels))
        found[spec.name] = spec
    return list(found.values())


def quick_names() -> list[str]:
    """The sample that `make test` runs: a test in each line, and comments."""
    lines = (HERE / "quick.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _conformance(spec: Spec) -> bool:
    return "Conformance" in spec.labels and not spec.labels & ALONE


def _serial(spec: Spec) -> bool:
    return "Conformance" in spec.labels and bool(spec.labels & ALONE)


def _load_balancers(spec: Spec) -> bool:
    return spec.name.startswith("[sig-network] LoadBalancers ")


def _network_policies(spec: Spec) -> bool:
    return spec.name.startswith("[sig-network] Netpol ")


def _storage(spec: Spec) -> bool:
    # tests of Windows' file system, and of features that the pinned Kubernetes has switched off
    return spec.name.startswith("External Storage ") and not spec.labels & {"Feature:Windows", "Alpha", "Serial", "Disruptive"}


def parts() -> Mapping[str, Part]:
    """All parts by name, in the order in which they run."""
    quick = frozenset(quick_names())

    def storage(binding: str) -> Sequence[str]:
        return (f"--storage.testdriver={HERE / f'storage-{binding}.yaml'}",)

    made = (
        Part("quick", "the sample of `make test`", "conformance", 4, lambda spec: spec.name in quick),
        Part("conformance", "`[Conformance]` without Serial, Slow and Disruptive", "conformance", 6, _conformance),
        # ginkgo runs what is Serial alone, after all that is not
        Part("serial", "`[Conformance]`, Serial, Slow or Disruptive", "conformance", LEAST_PROCESSES, _serial),
        Part("loadbalancer", "Services of type LoadBalancer", "loadbalancer", 3, _load_balancers),
        Part("network-policy", "NetworkPolicy objects", "network-policy", 3, _network_policies),
        Part(
            "storage-immediate", "the CSI driver, volumes bound at once", "storage-immediate", 4, _storage, storage("immediate")
        ),
        Part(
            "storage-delayed",
            "the CSI driver, volumes bound with their pod",
            "storage-delayed",
            4,
            _storage,
            storage("delayed"),
        ),
    )
    return {part.name: part for part in made}


def pending(part: Part, specs: Iterable[Spec], *, done: Collection[str]) -> list[str]:
    """The names of the part's tests without a result, in the order of ``specs``. ``done``: tests of the suite that have one."""
    return [spec.name for spec in specs if part.chosen(spec) and spec.name not in done]


def patterns(names: Iterable[str]) -> list[str]:
    """Regular expressions (Go's) that match exactly these names as ginkgo compares them, each short enough for an argument."""
    found: list[list[str]] = [[]]
    length = 0
    for name in sorted(names):
        escaped = _SPECIAL.sub(r"\\\g<0>", name)
        length += len(escaped) + 1
        if length > _LONGEST_PATTERN:
            found.append([])
            length = len(escaped) + 1
        found[-1].append(escaped)
    return [f"^{_SUITE} ({'|'.join(group)})$" for group in found if group]

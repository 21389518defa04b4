"""Which of Kubernetes' own tests belong to a part, and the patterns by which ginkgo runs exactly those."""

from __future__ import annotations

import re

from tests.conformance.parts import LEAST_PROCESSES, Spec, parts, patterns, pending, quick_names, read_specs


def _spec(name: str, *labels: str) -> Spec:
    return Spec(name, frozenset(labels))


SPECS = [
    _spec("[sig-node] Pods should run [Conformance]", "Conformance", "sig-node"),
    _spec("[sig-apps] Daemon set [Serial] should run [Conformance]", "Conformance", "Serial"),
    _spec("[sig-apps] Slow one [Slow] [Conformance]", "Conformance", "Slow"),
    _spec("[sig-node] Taints [Disruptive] [Conformance]", "Conformance", "Disruptive"),
    _spec("[sig-network] LoadBalancers should work [Slow]", "Slow"),
    _spec("[sig-network] Netpol NetworkPolicy should deny", "Feature:NetworkPolicy"),
    _spec("External Storage [Driver: x] should store", "sig-storage"),
    _spec("External Storage [Driver: x] should store on Windows", "Feature:Windows"),
    _spec("[sig-node] Pods should do something else", "sig-node"),
]


def _names(part: str) -> list[str]:
    return pending(parts()[part], SPECS, done=())


def test_conformance_and_serial_are_all_of_conformance_and_share_no_test() -> None:
    whole = {spec.name for spec in SPECS if "Conformance" in spec.labels}
    assert set(_names("conformance")) | set(_names("serial")) == whole
    assert not set(_names("conformance")) & set(_names("serial"))
    assert _names("conformance") == ["[sig-node] Pods should run [Conformance]"]


def test_every_part_has_the_processes_whose_log_can_be_read() -> None:
    assert all(part.processes >= LEAST_PROCESSES for part in parts().values())


def test_other_parts_are_chosen_by_their_area() -> None:
    assert _names("loadbalancer") == ["[sig-network] LoadBalancers should work [Slow]"]
    assert _names("network-policy") == ["[sig-network] Netpol NetworkPolicy should deny"]
    assert _names("storage-immediate") == _names("storage-delayed") == ["External Storage [Driver: x] should store"]


def test_only_tests_without_a_result_are_pending() -> None:
    part = parts()["serial"]
    first, *rest = _names("serial")
    assert pending(part, SPECS, done={first}) == rest


def test_the_patterns_match_the_names_and_nothing_else() -> None:
    names = [
        f"[sig-{area}] It's (really) 1+1? {'x' * 100} number {number} [Conformance]" for area in "ab" for number in range(900)
    ]
    made = patterns(names)
    assert len(made) > 1
    assert all(len(pattern) < 128 << 10 for pattern in made)
    compiled = [re.compile(pattern) for pattern in made]
    for name in names:
        assert sum(bool(one.search(f"Kubernetes e2e suite {name}")) for one in compiled) == 1
    for other in (f"{names[0]} more", names[0][1:], names[0].replace("1+1?", "11")):
        assert not any(one.search(f"Kubernetes e2e suite {other}") for one in compiled)
    assert patterns([]) == []


def test_a_dry_run_lists_tests_with_the_labels_of_all_that_is_around_them() -> None:
    report = [
        {
            "SpecReports": [
                {"LeafNodeType": "BeforeSuite", "LeafNodeText": "", "ContainerHierarchyTexts": None},
                {
                    "LeafNodeType": "It",
                    "LeafNodeText": "should run [Conformance]",
                    "LeafNodeLabels": ["Conformance"],
                    "ContainerHierarchyTexts": ["[sig-node] Pods", "in a node"],
                    "ContainerHierarchyLabels": [["sig-node"], None],
                },
            ]
        }
    ]
    assert read_specs(report) == [_spec("[sig-node] Pods in a node should run [Conformance]", "sig-node", "Conformance")]


def test_the_sample_has_forty_tests_of_conformance_from_many_areas() -> None:
    names = quick_names()
    assert len(names) == len(set(names)) == 40
    assert all("[Conformance]" in name and not re.search(r"\[(Serial|Slow|Disruptive)\]", name) for name in names)
    assert len({name.split("]")[0] for name in names}) >= 6

"""csi-sanity, the conformance suite of CSI, as the tests run it: the pinned binary, its words, and what it says at the end."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.toolchain.toolchain import Toolchain

#: Why the suite leaves specs out, word by word, because the driver does not offer it: optional abilities that Cinder CSI does
#: not have either. Exactly these: one that is offered one day must leave this list.
NOT_OFFERED = frozenset(
    {
        # several volumes at one moment
        "GroupControllerService not supported",
        # the pod's own mount is read-only instead
        "ControllerPublishVolume.readonly field not supported",
        "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported",
        "NodeGetStorageHealth not supported",
    }
)

#: The parameters of a VolumeAttributesClass, for a file: the type that the suite's volumes change to.
ATTRIBUTES = "type: files-multiattach"
#: What the suite's authors have switched off themselves.
PENDING = frozenset(
    {"pagination should detect volumes added between pages and accept tokens when the last volume from a page is deleted"}
)


def binary() -> Path:
    """The pinned csi-sanity, built where it is missing; ``MOYAI_CSI_SANITY`` names another one."""
    if given := os.environ.get("MOYAI_CSI_SANITY"):
        return Path(given)
    component = Toolchain(default_paths(), Reporter(lambda _event: None)).ensure(["csi-sanity"])["csi-sanity"]
    return component.files["csi-sanity"]


def words(
    program: str,
    *,
    endpoint: str,
    controller: str,
    folder: str,
    size: int,
    kind: str,
    report: str,
    attributes: str,
    more: tuple[str, ...] = (),
) -> list[str]:
    """The command line. ``folder``: where targets are made; ``size``: bytes of the volumes; ``kind``: ``mount`` or ``block``;
    ``report``: the file that will say what became of each spec. ``attributes``: a file of the text ``ATTRIBUTES``."""
    return [
        program,
        f"--csi.endpoint={endpoint}",
        f"--csi.controllerendpoint={controller}",
        f"--csi.mountdir={folder}/mount",
        f"--csi.stagingdir={folder}/staging",
        f"--csi.testvolumesize={size}",
        f"--csi.testvolumeexpandsize={2 * size}",
        f"--csi.testvolumeaccesstype={kind}",
        "--csi.testinvalidlistvolumesstartingtoken=no-token",
        "--csi.testnodevolumeattachlimit",
        f"--csi.testvolumemutableparameters={attributes}",
        "--ginkgo.v",
        "--ginkgo.no-color",
        f"--ginkgo.json-report={report}",
        *more,
    ]


@dataclass(frozen=True)
class Spec:
    """``state``: ginkgo's word, as passed, failed, skipped, pending. ``said``: why it was not passed."""

    name: str
    state: str
    said: str
    seconds: float


def read(report: str) -> list[Spec]:
    """What became of each spec; AssertionError where the suite did not come to an end."""
    suites = json.loads(report)
    assert len(suites) == 1
    assert suites[0]["SpecReports"]
    return [
        Spec(
            name=one["LeafNodeText"],
            state=one["State"],
            said=" ".join(one.get("Failure", {}).get("Message", "").split()),
            seconds=one["RunTime"] / 1e9,
        )
        for one in suites[0]["SpecReports"]
        if one["LeafNodeType"] == "It"
    ]


def check_whole(specs: list[Spec], *, code: int, text: str) -> None:
    """AssertionError unless all passed and nothing was left out but what is not offered. ``text``: what else the suite said."""
    wrong = [f"{one.name}: {one.state}: {one.said}" for one in specs if one.state not in ("passed", "skipped", "pending")]
    assert not wrong, "\n".join(wrong)
    assert code == 0, text[-3000:]
    assert {one.name for one in specs if one.state == "pending"} == PENDING
    assert {one.said for one in specs if one.state == "skipped"} == NOT_OFFERED
    assert sum(one.state == "passed" for one in specs) > 80

"""csi-sanity, the conformance suite of CSI, as the tests run it: the pinned binary, its words, and what it says at the end."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.toolchain.toolchain import Toolchain

#: What the suite leaves out because the driver does not offer it: optional abilities that Cinder CSI does not have either.
NOT_OFFERED = frozenset(
    {
        # retyping a volume
        "Modify volume not supported",
        "Modify Volume not supported",
        "ControllerModifyVolume not supported",
        # several volumes at one moment
        "GroupControllerService not supported",
        "VolumeGroupSnapshots not supported",
        # the pod's own mount is read-only instead
        "ControllerPublishVolume.readonly field not supported",
        "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported",
        "NodeGetStorageHealth not supported",
    }
)


def binary() -> Path:
    """The pinned csi-sanity, built where it is missing; ``MOYAI_CSI_SANITY`` names another one."""
    if given := os.environ.get("MOYAI_CSI_SANITY"):
        return Path(given)
    component = Toolchain(default_paths(), Reporter(lambda _event: None)).ensure(["csi-sanity"])["csi-sanity"]
    return component.files["csi-sanity"]


def words(program: str, *, endpoint: str, controller: str, folder: str, size: int, more: tuple[str, ...] = ()) -> list[str]:
    """The command line. ``folder``: where targets are made; ``size``: bytes of the volumes."""
    return [
        program,
        f"--csi.endpoint={endpoint}",
        f"--csi.controllerendpoint={controller}",
        f"--csi.mountdir={folder}/mount",
        f"--csi.stagingdir={folder}/staging",
        f"--csi.testvolumesize={size}",
        f"--csi.testvolumeexpandsize={2 * size}",
        "--csi.testinvalidlistvolumesstartingtoken=no-token",
        "--csi.testnodevolumeattachlimit",
        "--ginkgo.v",
        "--ginkgo.no-color",
        *more,
    ]


@dataclass(frozen=True)
class Outcome:
    ran: int
    passed: int
    failed: int
    skipped: tuple[str, ...]
    text: str


def read(text: str) -> Outcome:
    """What the suite said; AssertionError where it did not come to an end."""
    ran = re.search(r"Ran (\d+) of \d+ Specs", text)
    counts = re.search(r"(\d+) Passed \| (\d+) Failed \| \d+ Pending \| \d+ Skipped", text)
    assert ran, f"csi-sanity did not end: {text[-3000:]}"
    assert counts, f"csi-sanity did not end: {text[-3000:]}"
    skipped = tuple(" ".join(one.split()) for one in re.findall(r"\[SKIPPED\] (?!\[)(.*)", text))
    return Outcome(int(ran[1]), int(counts[1]), int(counts[2]), skipped, text)


def check_whole(outcome: Outcome, code: int) -> None:
    """AssertionError unless all passed and nothing was left out but what is not offered."""
    assert (outcome.failed, code) == (0, 0), outcome.text[-8000:]
    assert outcome.ran == outcome.passed > 50
    assert set(outcome.skipped) <= NOT_OFFERED

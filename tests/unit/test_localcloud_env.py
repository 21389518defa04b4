"""OpenStack's environment: its key follows its inputs, the lock is whole, a patch that does not fit is loud."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

from moyai.core.errors import MoyaiError
from moyai.localcloud import env

PATCH = env.Patch("pkg/mod.py", "sleep(0.5)\n", "sleep(0.01)\n", "quicker")


def test_every_package_of_the_lock_has_hashes_and_no_address() -> None:
    lock = env.lock_text()
    packages = re.findall(r"^([a-z0-9][\w.-]*)==(\S+)", lock, flags=re.MULTILINE | re.IGNORECASE)
    assert len(packages) > 150
    assert lock.count("--hash=sha256:") >= len(packages)
    assert "://" not in lock
    blocks = re.split(r"^(?=[a-z0-9][\w.-]*==)", lock, flags=re.MULTILINE | re.IGNORECASE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_lock_keeps_to_the_upper_constraints() -> None:
    folder = resources.files("moyai.localcloud").joinpath("data")
    allowed: dict[str, set[str]] = {}
    for line in folder.joinpath("openstack-constraints.txt").read_text().splitlines():
        name, _, rest = line.partition("===")
        version, _, marker = rest.partition(";")
        if not re.search(r"python_version\s*(==\s*'3\.(8|9|10)'|<)", marker):
            allowed.setdefault(re.sub(r"[-_.]+", "-", name).lower(), set()).add(version)
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", env.lock_text(), re.M):
        assert version in allowed.get(name.lower(), {version}), name


def test_the_key_changes_with_the_lock() -> None:
    assert env.env_key("a") == env.env_key("a") != env.env_key("b")


def test_a_patch_writes_a_new_file_and_leaves_the_cached_one(tmp_path: Path) -> None:
    cached, installed = tmp_path / "cached.py", tmp_path / "pkg" / "mod.py"
    installed.parent.mkdir()
    cached.write_text("a\nsleep(0.5)\nb\n")
    installed.hardlink_to(cached)
    env.apply_patch(tmp_path, PATCH)
    assert installed.read_text() == "a\nsleep(0.01)\nb\n"
    assert cached.read_text() == "a\nsleep(0.5)\nb\n"


@pytest.mark.parametrize("text", ["nothing\n", "sleep(0.5)\nsleep(0.5)\n"])
def test_a_patch_that_does_not_fit_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "mod.py").write_text(text)
    with pytest.raises(MoyaiError, match="is not as expected"):
        env.apply_patch(tmp_path, PATCH)
    assert (tmp_path / "pkg" / "mod.py").read_text() == text


def test_a_patch_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MoyaiError, match="occurs 0 times"):
        env.apply_patch(tmp_path, PATCH)


def test_names_of_octavias_own_driver_lead_to_ours(tmp_path: Path) -> None:
    """The lines are those of Octavia's release; the provider's own name comes with our package."""
    theirs = "octavia.api.drivers.amphora_driver.v2.driver:AmphoraProviderDriver"
    patches = [one for one in env.PATCHES if one.file.startswith("octavia-")]
    (file,) = {tmp_path / one.file for one in patches}
    file.parent.mkdir()
    names = ("amphora", "amphorav2", "octavia")
    file.write_text("".join(["[octavia.api.drivers]\n", *(f"{name} = {theirs}\n" for name in names), "x = y\n"]))
    for one in patches:
        env.apply_patch(tmp_path, one)
    ours = env.BESIDE["moyai_drivers-1.0.dist-info/entry_points.txt"].splitlines()[1].removeprefix("moyai = ")
    assert file.read_text().splitlines()[1:4] == [f"amphora = {ours}", f"amphorav2 = {theirs}", f"octavia = {ours}"]
    assert f"octavia=={file.parent.name.removeprefix('octavia-').removesuffix('.dist-info')}" in env.lock_text()

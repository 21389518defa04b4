"""The host's side: ranges that the host needs itself are refused; what is changed is recorded and put back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moyai.core.errors import MoyaiError, UsageError
from moyai.linux.process import Completed, ProcessError
from moyai.localcloud import host, tuning
from moyai.localcloud.layout import LocalCloudConfig

CONFIG = LocalCloudConfig(management_cidr="10.1.0.0/24", external_cidr="10.2.0.0/24")


class Kernel:
    """What `ip -json` would say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[dict[str, Any]] = []
        self.routes: list[dict[str, Any]] = []
        monkeypatch.setattr(host, "_json", self.answer)

    def answer(self, argv: list[str]) -> list[dict[str, Any]]:
        return self.addresses if "address" in argv else self.routes


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def address(device: str, text: str) -> dict[str, Any]:
    local, _, prefix = text.partition("/")
    return {"ifname": device, "addr_info": [{"local": local, "prefixlen": int(prefix)}]}


def test_a_free_range_passes(kernel: Kernel) -> None:
    kernel.addresses = [address("eth0", "192.0.2.2/24")]
    kernel.routes = [{"dst": "default", "dev": "eth0"}, {"dst": "192.0.2.0/24", "dev": "eth0"}]
    host.check_ranges(CONFIG)


def test_a_range_of_the_host_is_refused(kernel: Kernel) -> None:
    kernel.addresses = [address("eth0", "10.1.0.77/16")]
    with pytest.raises(UsageError, match=r"management range 10\.1\.0\.0/24 overlaps 10\.1\.0\.0/16 of the host's eth0"):
        host.check_ranges(CONFIG)


def test_a_range_that_the_host_routes_is_refused(kernel: Kernel) -> None:
    kernel.routes = [{"dst": "10.0.0.0/8", "dev": "tun0"}]
    with pytest.raises(UsageError, match=r"10\.0\.0\.0/8 by tun0"):
        host.check_ranges(CONFIG)


def test_our_own_routes_of_before_are_no_obstacle(kernel: Kernel) -> None:
    kernel.addresses = [address(CONFIG.link, "10.1.0.254/32")]
    kernel.routes = [
        {"dst": "10.1.0.0/24", "dev": CONFIG.link},
        {"dst": "10.2.0.0/24", "type": "unreachable", "metric": host.FENCE_METRIC},
    ]
    host.check_ranges(CONFIG)


def test_outbound_rules_keep_the_host_closed() -> None:
    rules = host.outbound_rules(CONFIG)
    assert f'iifname "{CONFIG.link}" ct state new drop' in rules
    assert "ip saddr { 10.2.0.0/24 } " in rules
    # replaced as a whole: a second write does not add a second entry
    assert rules.startswith("add table inet moyai-moyai\ndelete table inet moyai-moyai\n")


def test_a_host_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MoyaiError, match="MB of memory are free"):
        host.check_capacity(1 << 40, 0, folder=tmp_path)
    with pytest.raises(MoyaiError, match="GB are free"):
        host.check_capacity(1, 1 << 40, folder=tmp_path / "not" / "there")


class Sysctls:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, value in (
            ("fs/inotify/max_user_instances", "128"),
            ("fs/inotify/max_user_watches", "9999999"),
            ("net/ipv4/ip_forward", "0"),
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f"{value}\n")

    def __getitem__(self, name: str) -> str:
        return (self.folder / name).read_text().strip()


@pytest.fixture
def sysctls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sysctls:
    monkeypatch.setattr(tuning, "MODULES", {})
    return Sysctls(tmp_path / "sys")


def test_settings_are_raised_and_put_back_with_the_last_cloud(tmp_path: Path, sysctls: Sysctls) -> None:
    record = tmp_path / "record" / "host.json"

    def tune(name: str, **more: bool) -> None:
        assert tuning.tune(name, record=record, proc_sys=sysctls.folder, **more) == []

    tune("a")
    tune("b", outbound=True)
    tune("a")
    assert sysctls["fs/inotify/max_user_instances"] == "8192"
    assert sysctls["fs/inotify/max_user_watches"] == "9999999"
    assert sysctls["net/ipv4/ip_forward"] == "1"
    assert tuning.restore("a", record=record, proc_sys=sysctls.folder) == []
    assert sysctls["fs/inotify/max_user_instances"] == "8192"
    assert tuning.restore("b", record=record, proc_sys=sysctls.folder) == []
    assert sysctls["fs/inotify/max_user_instances"] == "128"
    assert sysctls["net/ipv4/ip_forward"] == "0"
    assert not record.exists()


def test_restoring_what_was_never_tuned_changes_nothing(tmp_path: Path, sysctls: Sysctls) -> None:
    assert tuning.restore("a", record=tmp_path / "r" / "host.json", proc_sys=sysctls.folder) == []
    assert sysctls["fs/inotify/max_user_instances"] == "128"


def test_a_module_that_cannot_be_had_is_named(tmp_path: Path, sysctls: Sysctls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "MODULES", {"no_such_module": ("false",)})
    monkeypatch.setattr(tuning, "_works", lambda trial: False)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    said = tuning.tune("a", record=tmp_path / "r" / "host.json", proc_sys=sysctls.folder)
    assert said == ["kernel module no_such_module cannot be loaded"]


@pytest.mark.parametrize("stays", [False, True])
def test_a_link_that_goes_while_it_is_taken_away_is_no_error(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    """The end of its namespace takes it along, a moment after the last process."""
    seen = iter([{CONFIG.link}, {CONFIG.link} if stays else set[str]()])
    monkeypatch.setattr(host, "links", lambda: next(seen))

    def refuse(argv: list[str], **_: object) -> Completed:
        if "link" in argv:
            raise ProcessError(argv, "ended with 1", output="Cannot find device")
        return Completed(tuple(argv), 0, "", "")

    monkeypatch.setattr(host, "run", refuse)
    if stays:
        with pytest.raises(ProcessError):
            host.detach(CONFIG)
    else:
        host.detach(CONFIG)

"""The user's clouds.yaml: our entries come and go, nobody else's is touched."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from moyai.core.errors import MoyaiError
from moyai.localcloud import clouds_yaml, secrets
from moyai.localcloud.layout import LocalCloudConfig

CONFIG = LocalCloudConfig()
OTHER = {"auth": {"auth_url": "https://elsewhere.example/v3"}, "region_name": "north"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "openstack" / "clouds.yaml"


def content(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def test_entries_are_put_into_a_new_private_file_and_taken_out_with_it(file: Path) -> None:
    values = secrets.generate()
    clouds_yaml.put(file, CONFIG, secrets=values)
    assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
    assert content(file)["clouds"]["moyai"]["auth"]["password"] == values.demo
    assert content(file)["clouds"]["moyai-admin"]["auth"]["project_name"] == "admin"
    clouds_yaml.remove(file, CONFIG)
    assert not file.exists()


def test_other_entries_stay(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(yaml.safe_dump({"clouds": {"work": OTHER}, "client": {"force_ipv4": True}}))
    clouds_yaml.put(file, CONFIG, secrets=secrets.generate())
    assert content(file)["clouds"]["work"] == OTHER
    clouds_yaml.remove(file, CONFIG)
    assert content(file) == {"clouds": {"work": OTHER}, "client": {"force_ipv4": True}}
    assert stat.S_IMODE(file.stat().st_mode) & 0o007 == 0


def test_an_entry_of_our_name_that_leads_elsewhere_is_never_overwritten_nor_removed(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(yaml.safe_dump({"clouds": {"moyai": OTHER}}))
    with pytest.raises(MoyaiError, match="another cloud's"):
        clouds_yaml.put(file, CONFIG, secrets=secrets.generate())
    clouds_yaml.remove(file, CONFIG)
    assert content(file) == {"clouds": {"moyai": OTHER}}


def test_nothing_is_written_when_nothing_changes(file: Path) -> None:
    values = secrets.generate()
    clouds_yaml.put(file, CONFIG, secrets=values)
    before = file.stat().st_ino
    clouds_yaml.put(file, CONFIG, secrets=values)
    assert file.stat().st_ino == before


@pytest.mark.parametrize("text", ["clouds: [", "just text", "clouds: 3"])
def test_a_broken_file_stays_as_it_is(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(MoyaiError, match="stays untouched"):
        clouds_yaml.put(file, CONFIG, secrets=secrets.generate())
    assert file.read_text() == text


def test_an_empty_file_is_no_error(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("clouds:\n")
    clouds_yaml.put(file, CONFIG, secrets=secrets.generate())
    assert set(content(file)["clouds"]) == {"moyai", "moyai-admin"}


def test_the_file_is_where_the_user_said() -> None:
    assert clouds_yaml.user_file({"OS_CLIENT_CONFIG_FILE": "/x/y.yaml"}) == Path("/x/y.yaml")
    assert clouds_yaml.user_file({"HOME": "/home/u"}) == Path("/home/u/.config/openstack/clouds.yaml")

"""The table of adapters: which of them is asked, what is imported for it, and how the parts inside a cluster find theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from moyai.ccm.settings import CcmConfig, ClusterConfig, read_ccm_config, write_ccm_config
from moyai.cli.ccm import ccm
from moyai.cli.csi import csi
from moyai.cloud.credentials import DIRECT, Use
from moyai.cloud.factory import ADAPTERS, DEFAULT, Adapters, provider_args
from moyai.cloud.memory import MemoryAdapter, MemoryCloud
from moyai.core.errors import Terminal, UsageError
from moyai.csi.settings import CsiConfig, read_csi_config, write_csi_config


def table(*clouds: MemoryCloud) -> Adapters:
    """A second kind of cloud, in front of OpenStack."""
    memory = MemoryAdapter(clouds={cloud.name: cloud for cloud in clouds})
    return Adapters({"memory": lambda: memory, "openstack": lambda: ADAPTERS.named("openstack")})


@pytest.fixture
def no_clouds_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clouds.yaml").write_text("clouds: {theirs: {auth: {auth_url: 'http://192.0.2.1/v3'}}}")
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    monkeypatch.delenv("OS_CLOUD", raising=False)
    monkeypatch.chdir(tmp_path)


def test_a_cloud_is_its_adapters_and_the_others_are_not_asked_for_it() -> None:
    mine = MemoryCloud(name="mine")
    assert table(mine, MemoryCloud(name="other")).connect("mine") is mine


def test_a_cloud_that_one_adapter_does_not_know_may_be_anothers(no_clouds_yaml: None) -> None:
    assert table(MemoryCloud(name="mine")).connect("theirs").kind.name == "openstack"


def test_a_cloud_that_no_adapter_knows_is_refused_with_the_clouds_of_all(no_clouds_yaml: None) -> None:
    with pytest.raises(UsageError) as caught:
        table(MemoryCloud(name="mine")).connect("nowhere")
    assert "in memory: mine" in str(caught.value)
    assert "there are: theirs" in str(caught.value)
    with pytest.raises(UsageError, match=r"clouds\.yaml has no cloud 'nowhere': there are: theirs"):
        ADAPTERS.connect("nowhere")


def test_a_provider_that_is_not_in_the_table_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="there is no cloud provider 'nimbus': there are: nifcloud, openstack"):
        ADAPTERS.named("nimbus")


def test_every_adapter_of_the_table_is_called_as_its_line_says_and_explains_its_keys() -> None:
    for adapter in ADAPTERS:
        assert ADAPTERS.named(adapter.name) is adapter
        assert set(adapter.login_meanings) == set(adapter.login_type.__dataclass_fields__)


def test_where_no_provider_is_named_the_default_is_meant_and_no_manifest_names_it() -> None:
    defaults = [option.default for command in (ccm, csi) for option in command.params if option.name == "cloud_provider"]
    assert defaults == [DEFAULT, DEFAULT]
    assert provider_args(DEFAULT) == ()
    assert provider_args("memory") == ("--cloud-provider=memory",)


@pytest.mark.parametrize("kind", ["ccm", "csi"])
def test_the_parts_inside_a_cluster_log_in_with_what_was_written_for_them(kind: str) -> None:
    cloud = MemoryCloud(name="mine")
    adapter = table(cloud).named("memory")
    use = Use.CONTROLLERS if kind == "ccm" else Use.VOLUMES
    made = cloud.credentials.create_credential(name="c", use=use, description="")
    login = adapter.issued_login(
        cloud="mine", region="r", url=cloud.account.login_url() or "", credential_id=made.id, secret=made.secret, reach=DIRECT
    )
    if kind == "ccm":
        text = write_ccm_config(CcmConfig(login, cluster=ClusterConfig("uid")))
        read = read_ccm_config(text, adapter).cloud
    else:
        text = write_csi_config(CsiConfig(login))
        read = read_csi_config(text, adapter).cloud
    assert read == login
    assert made.secret in read.secrets
    assert made.secret not in repr(login) + repr(made)
    inside = adapter.log_in(read)
    assert inside.machines.servers() == []
    with pytest.raises(Terminal, match="may not make others"):
        inside.credentials.create_credential(name="d", use=use, description="")


def test_a_file_without_a_login_names_the_key_of_its_own_kind_of_cloud() -> None:
    with pytest.raises(UsageError, match=r"cloud config has no url: give it in section \[Global\]"):
        read_ccm_config("", MemoryAdapter())
    with pytest.raises(UsageError, match=r"cloud config has no auth-url: give it in section \[Global\]"):
        read_ccm_config("", ADAPTERS.named("openstack"))


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import moyai.cloud.factory", set[str]()),
        ("import moyai.lifecycle.up, moyai.lifecycle.down, moyai.bootstrap.machine", set[str]()),
        ("from moyai.cloud.factory import ADAPTERS; ADAPTERS.named('openstack')", {"moyai.cloud.openstack"}),
        ("from moyai.cloud.factory import ADAPTERS; ADAPTERS.named('nifcloud')", {"moyai.cloud.nifcloud"}),
    ],
)
def test_an_adapter_is_imported_when_it_is_asked_for_and_its_client_later(code: str, loaded: set[str]) -> None:
    watched = {"moyai.cloud.nifcloud", "moyai.cloud.openstack", "moyai.cloud.memory", "keystoneauth1", "openstack", "botocore"}
    script = f"import sys; {code}; print(*({watched!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == loaded

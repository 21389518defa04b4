"""What the node image is made of: names that agree with the pins, files that its programs accept, tasks in order."""

from __future__ import annotations

import re
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from moyai.core.errors import Terminal
from moyai.core.ids import NODE_KUBE_PROXY
from moyai.core.kubernetes_version import DEFAULT_KUBERNETES_VERSION
from moyai.core.paths import Paths
from moyai.images import base_files, nginx, node_image, python_image, recipes, references
from moyai.images.oci import write_layer
from moyai.toolchain import TASK_PREFIX, load_pins

FILES = Path(node_image.__file__).with_name("node_files")
REPOSITORY = Path(__file__).parents[2]


def test_references_belong_to_the_pinned_versions() -> None:
    names, pins = references.load(), load_pins("amd64").components
    assert names.kubernetes == pins["kubernetes"].version
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"):
        assert names.tag(name) == f"v{pins['kubernetes'].version}"
    assert names.tag("etcd").partition("-")[0] == pins["etcd"].version
    assert names.tag("coredns") == f"v{pins['coredns'].version}"
    assert names.tag("pause") == pins["pause"].version
    for name in ("csi-attacher", "csi-provisioner", "csi-resizer", "csi-snapshotter"):
        assert names.tag(name) == f"v{pins[name].version}"
    assert names.tag("snapshot-controller") == names.tag("csi-snapshotter")


def test_a_node_has_its_kube_proxy_under_a_name_without_a_version() -> None:
    names = references.load("1.36.3")
    assert names.names("kube-proxy") == (references.kube_proxy("1.36.3"), NODE_KUBE_PROXY)
    assert names.names("kube-proxy")[0] == names.images["kube-proxy"]
    assert names.names("etcd") == (names.images["etcd"],)


def test_every_version_has_its_own_images_and_the_same_etcd_and_name_service() -> None:
    """An upgrade of Kubernetes changes neither, so it can be taken back."""
    pins = load_pins("amd64").components
    versions = [pin.version for pin in pins.values() if node_image.KUBERNETES in (pin.name, pin.instead_of)]
    assert versions[0] == DEFAULT_KUBERNETES_VERSION
    for version in versions:
        names = references.load(version)
        assert names.tag("kube-apiserver") == f"v{version}"
        assert (names.images["etcd"], names.images["coredns"]) == tuple(
            references.load().images[name] for name in ("etcd", "coredns")
        )
        assert references.known(version)
    assert not references.known("1.35.4")
    with pytest.raises(Terminal, match=r"makes no images for Kubernetes 1\.35\.4"):
        references.load("1.35.4")


def test_every_image_has_a_recipe_and_every_recipe_its_programs() -> None:
    names, pins = references.load(), load_pins("amd64").components
    assert set(recipes.PROGRAMS) == set(names.images)
    assert set(names.kubeadm) < set(names.images)
    for component, programs, _ in recipes.PROGRAMS.values():
        assert set(programs) <= set(pins[component].files)
        assert component in node_image.COMPONENTS


def test_what_kubeadm_starts_is_compared_with_what_is_made() -> None:
    names = references.load()
    printed = "\n".join(names.kubeadm.values())
    names.check(names.kubernetes, printed + "\n")
    with pytest.raises(Terminal, match=r"etcd:9\.9"):
        names.check(names.kubernetes, printed.replace(names.kubeadm["etcd"], "registry.k8s.io/etcd:9.9"))
    with pytest.raises(Terminal, match=r"references\.toml"):
        names.check("1.99.0", printed)


def test_containerds_configuration_is_what_a_node_needs() -> None:
    text = (FILES / "etc/containerd/config.toml").read_text()
    config = tomllib.loads(text)
    assert config["version"] == 3
    assert config["plugins"]["io.containerd.cri.v1.images"]["registry"]["config_path"] == "/etc/containerd/certs.d"
    runtime = config["plugins"]["io.containerd.cri.v1.runtime"]
    assert runtime["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"] is False
    assert (runtime["disable_apparmor"], runtime["restrict_oom_score_adj"]) == (True, True)
    assert runtime["cni"]["bin_dirs"] == ["/opt/cni/bin"]
    assert text.count("@SANDBOX_IMAGE@") == 1


def test_cloud_inits_configuration_asks_no_network() -> None:
    config = yaml.safe_load((FILES / "etc/cloud/cloud.cfg.d/99-moyai.cfg").read_text())
    assert config["datasource_list"] == ["ConfigDrive", "None"]
    assert config["network"] == {"config": "disabled"}
    assert config["locale"] is False
    assert "runcmd" in config["cloud_config_modules"]
    assert {"scripts_user", "write_files_deferred"} <= set(config["cloud_final_modules"])


def test_the_values_that_kubelet_wants_stand_in_for_the_hosts() -> None:
    proc = FILES / "etc/moyai/proc/sys"
    found = {path.relative_to(proc).as_posix(): int(path.read_text()) for path in proc.rglob("*") if path.is_file()}
    assert found == {
        "vm/overcommit_memory": 1,
        "vm/panic_on_oom": 0,
        "kernel/panic": 10,
        "kernel/panic_on_oops": 1,
        "kernel/keys/root_maxkeys": 1000000,
        "kernel/keys/root_maxbytes": 25000000,
    }


def test_nothing_of_a_certain_host_or_cloud_is_in_the_files() -> None:
    for path in FILES.rglob("*"):
        if path.is_file():
            assert not re.search(r"\b(10|192\.168|172)\.\d+\.\d+", path.read_text()), path


def test_the_tasks_wait_for_what_they_need_and_debian_does_not_wait_for_builds(tmp_path: Path) -> None:
    tasks = {task.name: task for task in node_image.tasks(Paths(tmp_path, tmp_path), after=("packages",))}
    assert tasks[node_image.ROOT].after == ("packages",)
    assert set(tasks[node_image.BASE].after) == {
        node_image.ROOT,
        node_image.PROXY,
        *(TASK_PREFIX + name for name in node_image.COMPONENTS),
    }
    assert set(tasks[node_image.NODE].after) == {node_image.BASE, node_image.MOYAI}
    assert list(tasks)[-1] == node_image.NODE
    other = {task.name: task for task in node_image.tasks(Paths(tmp_path, tmp_path), kubernetes="kubernetes-1.36")}
    assert TASK_PREFIX + "kubernetes-1.36" in other[node_image.BASE].after
    assert TASK_PREFIX + "kubernetes" not in other[node_image.BASE].after


def test_the_runtime_lock_is_part_of_the_whole_lock_and_names_no_address() -> None:
    def pinned(text: str) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ \\;]+)", text, re.MULTILINE))

    text = python_image.LOCK.read_text()
    runtime, everything = pinned(text), pinned((REPOSITORY / "requirements.lock").read_text())
    assert runtime.items() <= everything.items()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert {re.split("[>=<]", line)[0] for line in project["dependencies"]} <= set(runtime)
    assert not {"pytest", "ruff", "pyright"} & set(runtime)
    assert "://" not in text
    assert text.count("--hash=sha256:") >= len(runtime)


def test_nginx_is_set_up_as_the_official_image() -> None:
    files = {entry.path: entry for entry in nginx.files()}
    assert files["var/log/nginx/access.log"].target == "/dev/stdout"
    assert b"listen       80;" in bytes(files["etc/nginx/conf.d/default.conf"].content)  # type: ignore[reportArgumentType]
    assert nginx.CONFIG.cmd == ("nginx", "-g", "daemon off;")
    assert all(entry.mode == 0o755 for path, entry in files.items() if path.endswith(".sh"))


def test_the_files_of_an_image_come_without_what_no_program_needs(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in (
        "usr/bin/tool",
        "usr/share/man/man1/tool.1",
        "usr/share/doc/tool/copyright",
        "var/lib/dpkg/status",
        "usr/lib/gconv/x.so",
        "etc/hostname",
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("x")
    layer = write_layer(base_files.packages(tree), tmp_path / "layer")
    with tarfile.open(layer.path) as tar:
        files = {member.name for member in tar if member.isfile()}
    assert files == {"usr/bin/tool", "usr/share/doc/tool/copyright"}

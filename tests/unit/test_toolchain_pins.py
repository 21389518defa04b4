"""Pins: what ships is well-formed and consistent, and the key changes with all that decides what comes out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from moyai.toolchain.golang import program_name
from moyai.toolchain.pins import architecture, load_pins, parse_pins, version_tuple

CONTRACT = {
    "kubernetes": {
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "kubeadm",
        "kubectl",
    },
    "etcd": {"etcd", "etcdctl"},
    "etcdutl": {"etcdutl"},
    "coredns": {"coredns"},
    "containerd": {"containerd", "containerd-shim-runc-v2", "ctr"},
    "runc": {"runc"},
    "pause": {"pause"},
    "registry": {"registry"},
    "csi-attacher": {"csi-attacher"},
    "csi-provisioner": {"csi-provisioner"},
    "csi-resizer": {"csi-resizer"},
    "csi-snapshotter": {"csi-snapshotter", "snapshot-controller"},
    "csi-sanity": {"csi-sanity"},
    "flannel": {"flanneld"},
    "openstack-cloud-controller-manager": {"openstack-cloud-controller-manager"},
    "e2e": {
        "e2e.test", "ginkgo", "agnhost", "nnp", "regression-issue-74839", "sample-apiserver", "localhost.crt", "localhost.key",
        "kitten.jpg", "kitten.json", "nautilus.jpg", "nautilus.json",
    },
}  # fmt: skip


OTHER_VERSIONS = ["kubernetes-1.36", "kubernetes-restamped"]


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_what_ships_is_what_was_agreed(arch: str) -> None:
    pins = load_pins("amd64" if arch == "amd64" else "arm64")
    assert set(pins.components) == {*CONTRACT, "cni-plugins", "gophercloud", *OTHER_VERSIONS}
    for name, files in CONTRACT.items():
        assert set(pins.components[name].files) == files
    assert {"compute.v2", "loadbalancer.v2", "networking.v2"} <= set(pins.components["gophercloud"].files)
    assert {"bridge", "host-local", "loopback", "portmap"} <= set(pins.components["cni-plugins"].files)
    assert version_tuple(pins.go.version) >= version_tuple(pins.go.needed)
    assert re.fullmatch("[0-9a-f]{64}", pins.go.sha256)


def test_kubernetes_comes_last_because_it_takes_longest_and_its_tests_after_it() -> None:
    assert list(load_pins("amd64").components)[-4:] == ["kubernetes", *OTHER_VERSIONS, "e2e"]


def test_kubernetes_and_its_tests_are_of_one_version() -> None:
    components = load_pins("amd64").components
    assert components["e2e"].version == components["kubernetes"].version
    asked = [(pin.modules.folder / "go.mod").read_text() for name in ("kubernetes", "e2e") if (pin := components[name]).modules]
    kubernetes, tests = (dict(re.findall(r"^\t(\S+) (v\S+)", text, re.MULTILINE)) for text in asked)
    differing = {name for name in kubernetes.keys() & tests.keys() if kubernetes[name] != tests[name]}
    # a package of another version is compiled once more
    assert not differing
    assert len(kubernetes.keys() & tests.keys()) > 100


def test_every_version_is_the_one_that_go_mod_requires() -> None:
    for pin in load_pins("amd64").components.values():
        if pin.modules:
            module = (pin.modules.folder / "go.mod").read_text()
            version = "1.37.1" if pin.name == "kubernetes-restamped" else pin.version
            assert f" v{version}" in module, pin.name
            assert (pin.modules.folder / "go.sum").stat().st_size > 0


def test_every_stamp_and_release_says_the_version() -> None:
    for pin in load_pins("amd64").components.values():
        if pin.release:
            assert pin.version in pin.release.url
        stamps = pin.modules.stamps if pin.modules else dict[str, str]()
        for variable, value in stamps.items():
            if variable.endswith((".gitVersion", ".Version", ".version", ".VERSION", "BuildVersion", ".gitTag")):
                assert value == f"v{pin.version}", variable


@pytest.mark.parametrize("name", ["kubernetes", "kubernetes-1.36"])
def test_all_staging_modules_of_kubernetes_are_of_one_version(name: str) -> None:
    pin = load_pins("amd64").components[name]
    assert pin.modules
    replaced = re.findall(r"(\S+) => (\S+) (\S+)", (pin.modules.folder / "go.mod").read_text())
    assert len(replaced) > 30
    assert all(name == target and version == pin.version.replace("1.", "v0.", 1) for name, target, version in replaced)


def test_another_version_is_the_same_programs_and_no_release_of_the_first() -> None:
    components = load_pins("amd64").components
    first = components["kubernetes"]
    for name in OTHER_VERSIONS:
        other = components[name]
        assert (other.instead_of, other.files, other.release) == ("kubernetes", first.files, None)
        assert other.key != first.key
        assert other.version != first.version


_TEXT = """
[go]
version = "1.26.6"
[go.sha256]
amd64 = "aa"
arm64 = "bb"
[tool]
version = "1.0"
[tool.modules]
folder = "m"
[tool.modules.files]
tool = "example.org/tool"
[tool.release.amd64]
url = "https://example.org/tool.tgz"
sha256 = "{sha}"
folder = ""
"""


def _key(folder: Path, text: str, *, arch: str = "amd64") -> str:
    return parse_pins(text, folder, arch="amd64" if arch == "amd64" else "arm64").components["tool"].key


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "go.mod").write_text("module x\n\ngo 1.26.4\n")
    (tmp_path / "m" / "go.sum").write_text("one\n")
    return tmp_path


def test_the_key_changes_with_what_decides_the_outcome(modules: Path) -> None:
    text = _TEXT.format(sha="0" * 64)
    key = _key(modules, text)
    assert _key(modules, text) == key
    assert _key(modules, text, arch="arm64") != key
    assert _key(modules, text.replace('"1.0"', '"1.1"')) != key
    assert _key(modules, text.replace("example.org/tool", "example.org/other", 1)) != key
    # a checksum that is added later must not throw away what was built
    assert _key(modules, text.replace("0" * 64, "1" * 64)) == key
    for name in ("go.mod", "go.sum", "main.go"):
        with (modules / "m" / name).open("a") as file:
            file.write("// more\n")
        new = _key(modules, text)
        assert new != key
        key = new


def test_a_component_may_be_tests_alone(modules: Path) -> None:
    text = _TEXT.replace("[tool.modules.files]", "[tool.modules.tests]")
    assert parse_pins(text, modules, arch="arm64").components["tool"].files == ("tool",)


def test_the_go_that_is_needed_is_the_newest_that_a_module_asks_for(modules: Path) -> None:
    assert parse_pins(_TEXT.format(sha="0" * 64), modules, arch="amd64").go.needed == "1.26.4"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("0" * 64, "0" * 63, "SHA-256 of 64 digits"),
        ("https:", "http:", "https address"),
        ("tool.modules", "tool.moduls", "neither modules nor a C source"),
        ("[tool.release.amd64]", '[tool.modules.data]\nx = "m/x"\n[tool.release.amd64]', "m/x, should be MODULE//PATH"),
    ],
)
def test_a_wrong_pin_is_refused(modules: Path, old: str, new: str, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        parse_pins(_TEXT.format(sha="0" * 64).replace(old, new), modules, arch="amd64")


def test_a_release_of_another_architecture_is_not_used(modules: Path) -> None:
    text = _TEXT.format(sha="0" * 64)
    assert parse_pins(text, modules, arch="amd64").components["tool"].release
    assert parse_pins(text, modules, arch="arm64").components["tool"].release is None


def test_small_things() -> None:
    assert version_tuple("1.26.6") > version_tuple("1.26") > version_tuple("1.9.9")
    assert version_tuple("1.27rc1") == (1, 27)
    assert architecture("x86_64") == "amd64"
    assert architecture("aarch64") == "arm64"
    with pytest.raises(ValueError, match="riscv64"):
        architecture("riscv64")
    assert program_name("go.etcd.io/etcd/server/v3") == "server"
    assert program_name("k8s.io/kubernetes/cmd/kubelet") == "kubelet"

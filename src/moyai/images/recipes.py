"""The OCI images of a cluster, each made once from the toolchain's programs or from Debian's packages.

A recipe's key holds all that goes into it, so an image is recreated exactly when something of it changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from moyai.images import base_files, debian, nginx
from moyai.images.cache import Cache, key_of, remove
from moyai.images.oci import Entry, ImageConfig, Layer, folder, link, write_archive, write_layer
from moyai.toolchain import Component

#: Raised when the way in which images are written changes.
_FORMAT = 2

KUBE_PROXY_PACKAGES = ("nftables", "conntrack", "iptables", "kmod")
NGINX_PACKAGES = (
    "nginx", "ca-certificates", "curl", "bash", "dash", "coreutils", "findutils", "gettext-base", "grep", "sed", "libc-bin",
)  # fmt: skip

#: Short name → (component, its programs as file → path in the image, entry point).
PROGRAMS: Mapping[str, tuple[str, Mapping[str, str], Sequence[str]]] = {
    "kube-apiserver": ("kubernetes", {"kube-apiserver": "usr/local/bin/kube-apiserver"}, ()),
    "kube-controller-manager": ("kubernetes", {"kube-controller-manager": "usr/local/bin/kube-controller-manager"}, ()),
    "kube-scheduler": ("kubernetes", {"kube-scheduler": "usr/local/bin/kube-scheduler"}, ()),
    "kube-proxy": ("kubernetes", {"kube-proxy": "usr/local/bin/kube-proxy"}, ("/usr/local/bin/kube-proxy",)),
    "etcd": ("etcd", {"etcd": "usr/local/bin/etcd", "etcdctl": "usr/local/bin/etcdctl"}, ()),
    "coredns": ("coredns", {"coredns": "coredns"}, ("/coredns",)),
    "pause": ("pause", {"pause": "pause"}, ("/pause",)),
    "csi-attacher": ("csi-attacher", {"csi-attacher": "csi-attacher"}, ("/csi-attacher",)),
    "csi-provisioner": ("csi-provisioner", {"csi-provisioner": "csi-provisioner"}, ("/csi-provisioner",)),
    "csi-resizer": ("csi-resizer", {"csi-resizer": "csi-resizer"}, ("/csi-resizer",)),
    "csi-snapshotter": ("csi-snapshotter", {"csi-snapshotter": "csi-snapshotter"}, ("/csi-snapshotter",)),
    "snapshot-controller": ("csi-snapshotter", {"snapshot-controller": "snapshot-controller"}, ("/snapshot-controller",)),
}


def component_key(component: Component) -> list[object]:
    """The identity of a built component: its version, and its folder, whose name depends on how the component is built."""
    folders = sorted({path.parent.name for path in component.files.values()})
    return [component.name, component.version, folders]


def debian_tree(cache: Cache, name: str, *, packages: Sequence[str], on_line: Callable[[str], None]) -> Path:
    """A folder of unpacked Debian packages and all they depend on."""
    # the mirror is not part of the key: another one has the same packages, and none is needed once they are here
    key = key_of("extract", _FORMAT, debian.codename(), sorted(packages))

    def make(target: Path) -> None:
        debian.extract(debian.host_sources(), packages, target=target, on_line=on_line)

    return cache.get(f"debian-{name}", key, make=make, say=on_line)


def program_image(cache: Cache, name: str, *, tags: Sequence[str], component: Component, root: Path) -> Path:
    """The archive of an image that is a static program. ``root``: a Debian with certificates (for kube-proxy: its tools)."""
    _, programs, entrypoint = PROGRAMS[name]
    key = key_of("program", _FORMAT, name, *tags, component_key(component), root.name)

    def make(target: Path) -> None:
        entries = base_files.users()
        if name == "kube-proxy":
            entries += [*base_files.packages(root), *_iptables_links(), folder("etc/alternatives")]
        elif name != "pause":
            entries += base_files.certificates(root)
        program = [Entry(path, 0o755, content=component.files[file]) for file, path in programs.items()]
        _write(target, *tags, layers=[entries, program], config=ImageConfig(entrypoint=entrypoint))

    return cache.get(name, key, make=make, suffix=".tar")


def _iptables_links() -> list[Entry]:
    # what Debian's alternatives would have chosen
    names = ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")
    return [link(f"usr/sbin/{name}", "xtables-nft-multi") for name in names]


def nginx_image(cache: Cache, tag: str, *, on_line: Callable[[str], None]) -> Path:
    """nginx of Debian's package, set up as the official image is."""
    root = debian_tree(cache, "nginx", packages=NGINX_PACKAGES, on_line=on_line)
    key = key_of("nginx", _FORMAT, tag, root.name, [repr(entry) for entry in nginx.files()])

    def make(target: Path) -> None:
        _write(target, tag, layers=[nginx_packages(root), nginx.files()], config=nginx.CONFIG)

    return cache.get("nginx", key, make=make, suffix=".tar", say=on_line)


def nginx_packages(root: Path) -> list[Entry]:
    """The layer below nginx' own files, out of the unpacked ``NGINX_PACKAGES``."""
    return [
        *base_files.users([("nginx", 101)]),
        *base_files.packages(root, without=nginx.WITHOUT),
        *base_files.certificates(root),
    ]


def _write(target: Path, *tags: str, layers: Sequence[Sequence[Entry]], config: ImageConfig) -> None:
    made: list[Path] = []
    try:
        written: list[Layer] = []
        for number, entries in enumerate(layers):
            path = target.with_name(f"{target.name}-layer{number}")
            made.append(path)
            written.append(write_layer(entries, path))
        write_archive(target, tags=tags, layers=written, config=config)
    finally:
        for path in made:
            remove(path)

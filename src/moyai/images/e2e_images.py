"""The images that Kubernetes' own end-to-end tests start, made from the tests' programs and Debian's packages.

Upstream makes most of them on Alpine Linux. These have Debian instead, so a test that asks for Alpine itself cannot pass. All
else that upstream's Dockerfiles put into an image (programs, users, files, entry point) is in it as well. One archive holds all
images, so that a layer of several images is kept once.

Left out are images that no test of the parts in tests/conformance starts: volume/nfs, volume/iscsi, resource-consumer,
apparmor-loader, sample-device-plugin, node-perf, distroless-iptables, and the CSI driver for paths of the host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from moyai.core.errors import Terminal
from moyai.core.graph import Task
from moyai.core.paths import Paths
from moyai.core.progress import Progress
from moyai.images import base_files, nginx, recipes
from moyai.images.cache import Cache, key_of, remove
from moyai.images.oci import Entry, ImageConfig, ImageContent, Layer, folder, link, write_images, write_layer
from moyai.linux.process import run
from moyai.toolchain import TASK_PREFIX, Component

#: Raised when the way in which the images are made changes.
_FORMAT = 1

#: The task's name, as the user sees it, and the components that it needs.
E2E = "image: Kubernetes' tests"
COMPONENTS = ("e2e", "coredns", "etcd", "pause")

#: What a test calls in its images, beside what every Debian has. wget and not busybox': busybox' one, linked statically, loads
#: the C library of its image for names, and dies where that one is another; nor does it try again.
PACKAGES = (
    "bash", "dash", "coreutils", "findutils", "grep", "sed", "mawk", "tar", "gzip", "diffutils", "debianutils", "hostname",
    "util-linux", "mount", "login", "passwd", "procps", "libc-bin", "perl-base", "ca-certificates",
    "bind9-dnsutils", "curl", "wget", "netcat-openbsd", "iproute2", "iputils-ping", "socat", "iperf",
)  # fmt: skip
#: The shell of busybox drops environment variables whose names have a dash, which tests print: `sh` is bash there.
BUSYBOX_PACKAGES = ("busybox-static", "bash-static")

_TESTS = "registry.k8s.io/e2e-test-images"
#: Image → the names under which the tests ask for it.
NAMES: Mapping[str, Sequence[str]] = {
    "agnhost": (f"{_TESTS}/agnhost:2.66.1", f"{_TESTS}/agnhost:2.55"),
    "busybox": (f"{_TESTS}/busybox:1.37.0-2", f"{_TESTS}/busybox:1.36.1-1"),
    "etcd": ("registry.k8s.io/etcd:3.7.0-0",),
    "glibc-dns-testing": (f"{_TESTS}/glibc-dns-testing:2.1.1",),
    "ipc-utils": (f"{_TESTS}/ipc-utils:1.4",),
    "kitten": (f"{_TESTS}/kitten:1.8",),
    "nautilus": (f"{_TESTS}/nautilus:1.8",),
    "nginx": (f"{_TESTS}/nginx:1.27.0-2", f"{_TESTS}/nginx:1.28.0-2"),
    "nonewprivs": (f"{_TESTS}/nonewprivs:1.4",),
    "nonroot": (f"{_TESTS}/nonroot:1.5",),
    "pause": ("registry.k8s.io/pause:3.10.2",),
    "perl": (f"{_TESTS}/perl:5.26",),
    "regression-issue-74839": (f"{_TESTS}/regression-issue-74839:1.5",),
    "sample-apiserver": (f"{_TESTS}/sample-apiserver:1.29.2",),
}
#: Names that stand in manifests of the tests, and not in the list that the tests print.
IN_MANIFESTS = frozenset({f"{_TESTS}/busybox:1.36.1-1"})

#: A user and a group that tests of supplemental groups expect in agnhost's image.
_USER, _GROUP = ("user-defined-in-image", 1000), ("group-defined-in-image", 50000)


def task(paths: Paths, *, after: tuple[str, ...] = ()) -> Task:
    """The task that makes the images, for a graph with the toolchain's tasks of ``COMPONENTS``.

    Its result is the archive's path. ``after``: what it waits for besides (mmdebstrap must be there).
    """
    cache = Cache(paths.images)

    def make(results: Mapping[str, Any], step: Progress) -> Path:
        return archive(cache, {name: results[TASK_PREFIX + name] for name in COMPONENTS}, on_line=step.progress)

    return Task(E2E, make, (*(TASK_PREFIX + name for name in COMPONENTS), *after))


def archive(cache: Cache, components: Mapping[str, Component], *, on_line: Callable[[str], None]) -> Path:
    """The archive of all images. Raises Terminal where the tests ask for other names than ``NAMES`` has."""
    root = recipes.debian_tree(cache, "e2e", packages=PACKAGES, on_line=on_line)
    busybox = recipes.debian_tree(cache, "busybox", packages=BUSYBOX_PACKAGES, on_line=on_line)
    web = recipes.debian_tree(cache, "nginx", packages=recipes.NGINX_PACKAGES, on_line=on_line)
    trees = [tree.name for tree in (root, busybox, web)]
    key = key_of("e2e", _FORMAT, NAMES, trees, [recipes.component_key(one) for one in components.values()])

    def make(target: Path) -> None:
        check_names(run([str(components["e2e"].files["e2e.test"]), "--list-images"]).stdout)
        with ExitStack() as stack:
            written: dict[str, Layer] = {}
            for name, entries in _layers(components, root=root, busybox=busybox, web=web).items():
                on_line(f"layer {name}")
                path = target.with_name(f"{target.name}-{name}")
                stack.callback(remove, path)
                written[name] = write_layer(entries, path)
            on_line("the archive")
            images = [ImageContent(NAMES[name], [written[one] for one in layers], config) for name, layers, config in _images()]
            write_images(target, images)

    return cache.get("e2e", key, make=make, suffix=".tar", keep=1, say=on_line)


def check_names(printed: str) -> None:
    """Compare ``NAMES`` with what ``e2e.test --list-images`` printed. Raises Terminal for a name that it does not list."""
    stale = {name for names in NAMES.values() for name in names} - IN_MANIFESTS - set(printed.split())
    if stale:
        raise Terminal(
            f"Kubernetes' tests do not ask for {', '.join(sorted(stale))}",
            hint="bring images/e2e_images.py up to the pinned Kubernetes",
        )


def _layers(components: Mapping[str, Component], *, root: Path, busybox: Path, web: Path) -> dict[str, list[Entry]]:
    tests = components["e2e"].files

    def program(component: str, file: str, path: str, mode: int = 0o755) -> Entry:
        return Entry(path, mode, content=components[component].files[file])

    def page(name: str) -> list[Entry]:
        return [
            Entry(f"{name}.jpg", content=tests[f"{name}.jpg"]),
            Entry("data.json", content=tests[f"{name}.json"]),
        ]

    return {
        "debian": [
            *base_files.users(),
            *base_files.packages(root),
            *base_files.certificates(root),
            # what Debian's alternatives would have chosen
            link("usr/bin/nc", "nc.openbsd"),
            link("usr/bin/awk", "mawk"),
            link("usr/bin/which", "which.debianutils"),
            Entry("etc/wgetrc", content=b"tries = 1\n"),
        ],
        "agnhost": [
            *_agnhost_users(),
            program("e2e", "agnhost", "agnhost"),
            link("agnhost-2", "agnhost"),
            program("coredns", "coredns", "coredns"),
            Entry("localhost.crt", content=tests["localhost.crt"]),
            Entry("localhost.key", content=tests["localhost.key"]),
            folder("uploads"),
            link("usr/local/bin/iperf", "/usr/bin/iperf"),
        ],
        "kitten": page("kitten"),
        "nautilus": page("nautilus"),
        "coredns": [program("coredns", "coredns", "coredns")],
        "busybox": _busybox(busybox),
        "etcd": [
            *base_files.users(),
            program("etcd", "etcd", "usr/local/bin/etcd"),
            program("etcd", "etcdctl", "usr/local/bin/etcdctl"),
        ],
        "nginx-packages": recipes.nginx_packages(web),
        "nginx": nginx.files(),
        # it starts with the rights of root, unless the pod forbids that: this is what its test looks at
        "nonewprivs": [program("e2e", "nnp", "usr/local/bin/nnp", 0o6755)],
        "pause": [*base_files.users(), program("pause", "pause", "pause")],
        "regression-issue-74839": [program("e2e", "regression-issue-74839", "regression-issue-74839")],
        "sample-apiserver": [
            *base_files.users(),
            *base_files.certificates(root),
            program("e2e", "sample-apiserver", "sample-apiserver"),
        ],
    }


def _images() -> list[tuple[str, Sequence[str], ImageConfig]]:
    """Image, its layers from the lowest to the highest, how it runs."""
    agnhost = ImageConfig(
        entrypoint=("/agnhost",), cmd=("pause",), ports=[f"{port}/tcp" for port in (80, 5000, 8080, 8081, 9376)]
    )
    shell = ImageConfig(cmd=("bash",))
    return [
        ("agnhost", ["debian", "agnhost"], agnhost),
        ("busybox", ["busybox"], ImageConfig(cmd=("sh",))),
        ("etcd", ["etcd"], ImageConfig()),
        ("glibc-dns-testing", ["debian", "coredns"], shell),
        ("ipc-utils", ["debian"], shell),
        ("kitten", ["debian", "agnhost", "kitten"], dataclasses.replace(agnhost, cmd=("test-webserver",))),
        ("nautilus", ["debian", "agnhost", "nautilus"], dataclasses.replace(agnhost, cmd=("test-webserver",))),
        ("nginx", ["nginx-packages", "nginx"], nginx.CONFIG),
        ("nonewprivs", ["debian", "nonewprivs"], ImageConfig(cmd=("nnp",))),
        ("nonroot", ["debian"], dataclasses.replace(shell, user="1234")),
        ("pause", ["pause"], ImageConfig(entrypoint=("/pause",))),
        ("perl", ["debian"], shell),
        ("regression-issue-74839", ["debian", "regression-issue-74839"], ImageConfig(entrypoint=("/regression-issue-74839",))),
        ("sample-apiserver", ["sample-apiserver"], ImageConfig(entrypoint=("/sample-apiserver",))),
    ]


def _agnhost_users() -> list[Entry]:
    (user, uid), (group, gid) = _USER, _GROUP
    entries = base_files.users([_USER])
    groups = next(entry for entry in entries if entry.path == "etc/group")
    assert isinstance(groups.content, bytes)
    content = groups.content + f"{group}:x:{gid}:{user}\n".encode()
    return [*entries, dataclasses.replace(groups, content=content), Entry(f"home/{user}", 0o755, "folder", uid=uid)]


def _busybox(root: Path) -> list[Entry]:
    program = root / "bin/busybox"
    applets = run([str(program), "--list"]).stdout.split()
    return [
        *base_files.users(),
        *(link(f"bin/{applet}", "busybox") for applet in applets),
        Entry("bin/busybox", 0o755, content=program),
        Entry("bin/bash", 0o755, content=root / "bin/bash-static"),
        link("bin/sh", "bash"),
        link("usr/bin/env", "/bin/env"),
        folder("var/spool/mail"),
    ]

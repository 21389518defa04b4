"""The node image: a Debian with everything a Kubernetes node needs, and a store that already holds what it starts.

One compressed tar (zstd) of a root file system. It is two tars one after the other: the base, kept by what goes into it, and
a short tail with moyai's own image, so that a change of moyai's source recreates only the tail. Where both hold a file the
later one counts, as with any tar.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moyai.core.errors import Terminal
from moyai.core.graph import Task, run_graph
from moyai.core.paths import Paths
from moyai.core.progress import Progress, Reporter
from moyai.images import recipes, references, rootfs
from moyai.images.cache import Cache, digest_of_folder, key_of, remove
from moyai.images.containerd_store import import_images
from moyai.images.node_tree import FILES, STORE, copy_linked, enable_node, place_files, place_programs, walk
from moyai.images.python_image import moyai_image
from moyai.linux.process import ProcessError, run
from moyai.toolchain import TASK_PREFIX, Component, Toolchain

#: The component that decides the version; another one may be taken instead of it.
KUBERNETES = "kubernetes"
#: The components that a node image is made of.
COMPONENTS = (
    "kubernetes", "etcd", "coredns", "containerd", "runc", "cni-plugins", "pause",
    "csi-attacher", "csi-provisioner", "csi-resizer", "csi-snapshotter",
)  # fmt: skip

#: Names of the tasks, as the user sees them.
ROOT, PROXY, MOYAI, NGINX, BASE, NODE = (
    "image: Debian", "image: kube-proxy's tools", "image: moyai", "image: nginx", "image: node base", "image: node",
)  # fmt: skip

#: Raised when the way in which the node image is put together changes.
_FORMAT = 2

#: Packs a folder: always the same bytes for the same files. $1 folder, $2 latest date, $3 list of paths, $4 how many bytes
#: to leave off at the end (the two empty blocks that end a tar, when another one follows), $5 file to write.
_PACK = """tar -C "$1" --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime --numeric-owner \
 --xattrs --xattrs-include='*' --clamp-mtime --mtime="@$2" --blocking-factor=1 --no-recursion --null -T "$3" -cf - |
 head -c "-$4" | zstd -q -f -T0 -3 -o "$5" """


@dataclass(frozen=True)
class NodeImage:
    """``path``: the file. ``version``: of Kubernetes (``1.37.1``). ``key``: another one means another content."""

    path: Path
    version: str
    key: str


def components(kubernetes: str = KUBERNETES) -> tuple[str, ...]:
    """``COMPONENTS`` with another version of Kubernetes; ``kubernetes``: the component's name."""
    return tuple(kubernetes if name == KUBERNETES else name for name in COMPONENTS)


def ensure(toolchain: Toolchain, paths: Paths, *, reporter: Reporter, kubernetes: str = KUBERNETES) -> NodeImage:
    """The node image, made if it is not there; so are the programs that it needs. ``kubernetes``: see ``components``."""
    graph = [*toolchain.tasks(components(kubernetes)), *tasks(paths, kubernetes=kubernetes)]
    result: NodeImage = run_graph(graph, reporter, workers=len(graph))[NODE]
    return result


def tasks(paths: Paths, *, after: tuple[str, ...] = (), kubernetes: str = KUBERNETES) -> list[Task]:
    """Tasks for a graph that also holds the toolchain's tasks of ``components``; the last, ``NODE``, gives the NodeImage.

    ``after``: what the first ones wait for (mmdebstrap and zstd must be there). They take no network once all is made.
    """
    cache = Cache(paths.images)
    names = components(kubernetes)
    programs = tuple(TASK_PREFIX + name for name in names)

    def base(results: Mapping[str, Any], step: Progress) -> Path:
        made = {of: results[TASK_PREFIX + name] for of, name in zip(COMPONENTS, names, strict=True)}
        return _base(cache, made, root=results[ROOT], proxy=results[PROXY], say=step.progress)

    def node(results: Mapping[str, Any], step: Progress) -> NodeImage:
        return _node(cache, results[TASK_PREFIX + "containerd"], base=results[BASE], moyai=results[MOYAI], say=step.progress)

    def tools(_: Mapping[str, Any], step: Progress) -> Path:
        return recipes.debian_tree(cache, "kube-proxy", packages=recipes.KUBE_PROXY_PACKAGES, on_line=step.progress)

    return [
        Task(ROOT, lambda _, step: rootfs.debian_root(cache, step.progress), after),
        Task(PROXY, tools, after),
        Task(MOYAI, lambda _, step: moyai_image(cache, references.MOYAI, on_line=step.progress), after),
        Task(BASE, base, (*programs, ROOT, PROXY)),
        Task(NODE, node, (BASE, MOYAI)),
    ]


def nginx_task(paths: Paths, *, after: tuple[str, ...] = ()) -> Task:
    """The task that makes nginx's image; its result is the archive's path."""
    cache = Cache(paths.images)
    return Task(NGINX, lambda _, step: recipes.nginx_image(cache, references.NGINX, on_line=step.progress), after)


def _base(cache: Cache, components: Mapping[str, Component], *, root: Path, proxy: Path, say: Callable[[str], None]) -> Path:
    """The folder of the node image without moyai: ``base.tar.zst`` and ``store``."""
    kubeadm = components[KUBERNETES].files["kubeadm"]
    version = components[KUBERNETES].version
    names = references.load(version)
    printed = run([str(kubeadm), "config", "images", "list", "--kubernetes-version", f"v{version}"]).stdout
    names.check(version, printed)
    say("control plane images")
    archives = [
        recipes.program_image(
            cache, name, tags=names.names(name), component=components[component], root=proxy if name == "kube-proxy" else root
        )
        for name, (component, _, _) in recipes.PROGRAMS.items()
    ]
    key = key_of(
        *("node-base", _FORMAT, version, root.name, digest_of_folder(FILES), [archive.name for archive in archives]),
        [recipes.component_key(component) for component in components.values()],
    )

    def make(target: Path) -> None:
        target.mkdir()
        tree = target / "tree"
        say("root file system")
        copy_linked(root, tree)
        # of the newest packaged file (rootfs.clamp; the folder's own date is that of its last use): nothing is newer
        date = int((tree / "etc/machine-id").stat().st_mtime)
        place_files(tree, names)
        enable_node(tree)
        place_programs(tree, components)
        say("images into the store")
        import_images(components["containerd"], target / "store", archives=archives)
        copy_linked(target / "store", tree / STORE)
        say("packing")
        _pack(tree, [path for path, _ in walk(tree)], target=target / "base.tar.zst", date=date, last=False)
        (target / "version").write_text(version)
        (target / "date").write_text(str(date))
        shutil.rmtree(tree)

    return cache.get("node-base", key, make=make, say=say)


def _node(cache: Cache, containerd: Component, *, base: Path, moyai: Path, say: Callable[[str], None]) -> NodeImage:
    key = key_of("node", _FORMAT, base.name, moyai.name)

    def make(target: Path) -> None:
        work = target.with_name(f"{target.name}-work")
        try:
            say("moyai's image into the store")
            copy_linked(base / "store", work / STORE)
            import_images(containerd, work / STORE, archives=[moyai])
            known = {(info.st_dev, info.st_ino) for _, info in walk(base / "store")}
            added = [path for path, info in walk(work / STORE) if (info.st_dev, info.st_ino) not in known]
            say("packing")
            _pack(work / STORE, added, target=work / "tail", date=int((base / "date").read_text()), last=True, prefix=STORE)
            with target.open("wb") as whole:
                for part in (base / "base.tar.zst", work / "tail"):
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, whole, 1 << 20)
        finally:
            remove(work)

    path = cache.get("node", key, make=make, suffix=".tar.zst", say=say)
    return NodeImage(path, (base / "version").read_text(), key)


def _pack(tree: Path, paths: Sequence[str], *, target: Path, date: int, last: bool, prefix: str = "") -> None:
    top = tree.parents[len(Path(prefix).parts) - 1] if prefix else tree
    listing = target.with_name(f"{target.name}.list")
    names = [(Path(prefix) / path).as_posix() for path in paths]
    listing.write_bytes(b"".join(os.fsencode(name) + b"\0" for name in names))
    words = [str(top), str(date), str(listing), "0" if last else "1024", str(target)]
    try:
        run(["bash", "-o", "pipefail", "-c", _PACK, "moyai", *words])
    except ProcessError as error:
        raise Terminal(f"the node image cannot be packed: {error}", hint="is the disk full?") from error
    finally:
        listing.unlink(missing_ok=True)

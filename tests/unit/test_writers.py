"""Every place that writes to a disk is known, and says how a kill, a loss of power and a full disk end there.

A file that others read is written by a helper that replaces it as a whole and names it when the disk is full: ``core.files`` in
moyai's own processes, ``linux.files`` in the local cloud's programs. Each other place is in the table below with its reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import moyai
from tests.syntax import tree_of

SOURCE = Path(moyai.__file__).parent
_METHODS = {"write_text", "write_bytes", "touch", "symlink_to", "hardlink_to", "rename"}
_OS = {"rename", "replace", "link", "symlink", "mknod"}
_SHUTIL = {"copy", "copy2", "copyfile", "copyfileobj", "copytree", "move"}
_FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND"}

HELPER = "replaces a file as a whole, and names it when the disk is full"
KERNEL = "the kernel's own files, on no disk"
ASIDE = "below a folder that gets its name when it is whole, and goes when the work fails"
LOG = "a log: nothing depends on it, and a full disk keeps nothing from running"
LOCK = "an empty file that a lock is on"
MARKER = "an empty file or a link, whole as soon as it is there"
LINK = "gives the host's own file its name again; its content was never touched"
MEMORY = "in memory"
STREAM = "into a stream of core.files, which replaces the file as a whole"
NAMELESS = "a file without a name, which goes with its process; the disk's room is looked at before each write"
GUEST = "a file of a machine's own disk, which is made again when its host has stopped"
IMAGE = "made again when it is deleted; only a loss of power within seconds could leave less than the whole"
OUTPUT = "the output of a program, read by its starter only"
AGAIN = "written again before each use"
TRASH = "gives a folder that is to be deleted another name"
PACKAGE = "of a Python environment that counts only with its marker, which is written last"
NODE = "on a node, which has none of moyai's packages: written aside, synced and renamed there"
ERASED = "overwrites a secret where it stands, so that the disk has it no more"
RENAMED = "gives a file another name, and is done again until its effect is seen"
PAGES = "a contributor's command"

KNOWN: dict[str, str] = {
    "bootstrap.data.etcd_member:write": NODE,
    "bootstrap.data.leave_control_planes:servers": RENAMED,
    "bootstrap.data.machine_keys:Machine.kubelet_files": NODE,
    "bootstrap.data.machine_keys:Machine.write": NODE,
    "bootstrap.data.renew_certificates:write": NODE,
    "bootstrap.data.unsealing_key:keep": NODE,
    "bootstrap.data.unsealing_key:overwrite": ERASED,
    "bootstrap.data.restore_etcd:forget": NODE,
    "bootstrap.data.restore_etcd:place": NODE,
    "bootstrap.user_data:tar_of": MEMORY,
    "cli.main:_leave_output": KERNEL,
    "cli.reference.__main__:": PAGES,
    "core.files:rename_durably": HELPER,
    "core.files:write_private": HELPER,
    "core.files:writing_private": HELPER,
    "core.locks:file_lock": LOCK,
    "csi.node.disks:BusDevices.find": KERNEL,
    "csi.node.disks:BusDevices.let_go": KERNEL,
    "csi.node.disks:LinuxDevices.rescan": KERNEL,
    "csi.node.disks:LinuxMounts.make_file": MARKER,
    "images.containerd_store:import_images": ASIDE,
    "images.disk.boot:bios_code": ASIDE,
    "images.disk.boot:write_esp": ASIDE,
    "images.disk.disk_image:_make": ASIDE,
    "images.disk.disk_image:_write_boot": ASIDE,
    "images.disk.disk_image:fill_tree": ASIDE,
    "images.disk.disk_root:disk_root.make": ASIDE,
    "images.disk.ext4:write_ext4": ASIDE,
    "images.node_image:_base.make": ASIDE,
    "images.node_image:_node.make": ASIDE,
    "images.node_image:_pack": ASIDE,
    "images.node_tree:copy_linked": ASIDE,
    "images.node_tree:enable_node": ASIDE,
    "images.node_tree:place_files": ASIDE,
    "images.node_tree:place_programs": ASIDE,
    "images.oci:write_images": ASIDE,
    "images.oci:write_layer": ASIDE,
    "images.python_image:dependencies_layer.make": ASIDE,
    "images.python_image:moyai_image.make": ASIDE,
    "images.rootfs:_replace": ASIDE,
    "images.rootfs:strip": ASIDE,
    "images.unpacking:_writable": MARKER,
    "images.unpacking:plain": NAMELESS,
    "lifecycle.etcd_data:make_etcd_data": STREAM,
    "lifecycle.restore_cluster:_read.into": ASIDE,
    "lifecycle.restore_cluster:_stage": ASIDE,
    "lifecycle.rehearse:_record": ASIDE,
    "linux.background:background": OUTPUT,
    "linux.beneath:make_device": KERNEL,
    "linux.beneath:write": GUEST,
    "linux.cgroups.base:write": KERNEL,
    "linux.daemons:NamespaceInit.start": LOG,
    "linux.daemons:held": LOG,
    "linux.files:_write": HELPER,
    "linux.files:rename_durably": HELPER,
    "linux.haproxy:HAProxy._start": MARKER,
    "linux.haproxy:HAProxy.apply": AGAIN,
    "linux.hardware:write": AGAIN,
    "linux.nspawn:Host._plug": AGAIN,
    "linux.nspawn:trim_console": LOG,
    "linux.netns:sysctl": KERNEL,
    "linux.sysctl:put": KERNEL,
    "localcloud.database_image:DatabaseImages._take": ASIDE,
    "localcloud.drivers.cinder.driver:FileDriver._copy": ASIDE,
    "localcloud.drivers.nova.image_tree:_split": ASIDE,
    "localcloud.drivers.nova.machines:Machines.remove": TRASH,
    "localcloud.drivers.nova.machines:Machines.start": TRASH,
    "localcloud.drivers.nova.unpacked_images:ImageStore._unpack": IMAGE,
    "localcloud.drivers.nova.unpacked_images:ImageStore.prune": TRASH,
    "localcloud.drivers.octavia.agent:LoadBalancerAgent.run": LOCK,
    "localcloud.drivers.octavia.data_plane:Plane._note_udp": MARKER,
    "localcloud.drivers.octavia.data_plane:Plane.place": MARKER,
    "localcloud.env:_install": PACKAGE,
    "localcloud.env:apply_patch": PACKAGE,
    "localcloud.env:link_package": MARKER,
    "localcloud.host:attach": KERNEL,
    "localcloud.inside:prepare": KERNEL,
    "localcloud.packages:no_daemon_starts": ASIDE,
    "localcloud.packages:put_policy_back": LINK,
    "localcloud.setup:Setup._manage": LOG,
    "localcloud.start_stop:_CloudStart.run": MARKER,
    "localcloud.supervisor:_cut": LOG,
    "localcloud.supervisor:main": LOG,
    "localcloud.tuning:_load": KERNEL,
    "localcloud.tuning:restore": KERNEL,
    "localcloud.tuning:tune": KERNEL,
    "spec.doc:": PAGES,
    "toolchain.component_store:ComponentStore._seal": ASIDE,
    "toolchain.component_store:ComponentStore.make": ASIDE,
    "toolchain.golang:GoToolchain._fetch": ASIDE,
    "toolchain.golang:GoToolchain.build": ASIDE,
    "toolchain.release:fetch": ASIDE,
    "toolchain.release:unpack": ASIDE,
}


def places(file: Path) -> Iterator[str]:
    """``module:function`` of each call that writes."""
    module = file.relative_to(SOURCE).with_suffix("").as_posix().replace("/", ".")

    def visit(node: ast.AST, where: tuple[str, ...]) -> Iterator[str]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            where = (*where, node.name)
        if isinstance(node, ast.Call) and writes(node):
            yield f"{module}:{'.'.join(where)}"
        for child in ast.iter_child_nodes(node):
            yield from visit(child, where)

    yield from visit(tree_of(file), ())


def writes(call: ast.Call) -> bool:
    """Whether the call makes, changes or renames a file."""
    function = call.func
    if isinstance(function, ast.Name):
        return function.id == "open" and _mode_writes(call, 1)
    if not isinstance(function, ast.Attribute):
        return False
    of, name = ast.unparse(function.value), function.attr
    if of == "os":
        flags = {node.attr for one in call.args[1:2] for node in ast.walk(one) if isinstance(node, ast.Attribute)}
        flags |= {node.id for one in call.args[1:2] for node in ast.walk(one) if isinstance(node, ast.Name)}
        return name in _OS or (name == "open" and bool(flags & {*_FLAGS, "flags"}))
    if of == "shutil":
        return name in _SHUTIL
    if of == "tempfile":
        return True
    if name == "open":
        return _mode_writes(call, 1 if of == "tarfile" else 0)
    # a file's `replace` has one argument, a text's has two, a date's has named ones
    return name in _METHODS or (name == "replace" and len(call.args) == 1 and not call.keywords)


def _mode_writes(call: ast.Call, position: int) -> bool:
    given = [*call.args[position : position + 1], *(word.value for word in call.keywords if word.arg == "mode")]
    return any(isinstance(one, ast.Constant) and isinstance(one.value, str) and set(one.value) & set("wax+") for one in given)


def test_every_place_that_writes_is_known() -> None:
    found = {place for file in SOURCE.rglob("*.py") for place in places(file)}
    assert found - KNOWN.keys() == set(), "write with core.files or linux.files, or say here why the place need not"
    assert KNOWN.keys() - found == set(), "these places do not write any more"


def test_the_search_finds_each_way_to_write() -> None:
    for text in (
        "open(a, 'w')",
        "open(a, mode='ab')",
        "a.open('x')",
        "a.write_text(b)",
        "os.open(a, os.O_WRONLY | os.O_CREAT)",
        "os.replace(a, b)",
        "a.replace(b)",
        "a.rename(b)",
        "shutil.copytree(a, b)",
        "tempfile.mkdtemp()",
        "tarfile.open(a, 'w')",
    ):
        (call,) = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
        assert writes(call), text
    for text in ("open(a)", "a.open('rb')", "'a'.replace('b', 'c')", "now.replace(tzinfo=UTC)", "os.open(a, os.O_RDONLY)"):
        (call,) = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))
        assert not writes(call), text

"""Everything that a cluster on the local cloud stands on: host packages, components, images, the cloud itself.

One graph of tasks, so that downloads, builds, root file systems and OpenStack's environment are made side by side, each once:
what was prepared before is found, which costs next to nothing and needs no network. This is the place where toolchain, images,
local cloud and the OpenStack adapter meet; none of them knows the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moyai.cli.display import reporter as display
from moyai.cli.local_way import go_past_proxies
from moyai.cli.terminal import OUTPUT
from moyai.core.errors import MoyaiError, UsageError
from moyai.core.graph import Task, run_graph
from moyai.core.kubernetes_version import DEFAULT_KUBERNETES_VERSION
from moyai.core.paths import Paths, default_paths
from moyai.core.progress import Progress, Reporter
from moyai.core.reading import read_mapping
from moyai.images import e2e_images, node_image
from moyai.localcloud import env, packages
from moyai.localcloud import start_stop as local
from moyai.localcloud.clouds_yaml import user_file
from moyai.localcloud.layout import PORTS, CloudPaths, LocalCloudConfig
from moyai.toolchain import HOST_PACKAGES, TASK_PREFIX, Toolchain

if TYPE_CHECKING:
    from moyai.cloud.capabilities import Cloud
    from moyai.cloud.model import Image

#: The cloud that a spec means when it names none, and the only one that is started without having been asked for by name.
DEFAULT_CLOUD = "moyai"

PACKAGES, ENVIRONMENT, CLOUD, UPLOAD, PUSH = (
    "host packages",
    "OpenStack's environment",
    "local cloud",
    "node image into Glance",
    "nginx into the registry",
)


def is_local(name: str, paths: Paths) -> bool:
    """Whether ``name`` is a local cloud: one that was made here, or the default one where clouds.yaml has no such entry."""
    if CloudPaths(paths.cloud(name)).record.exists():
        return True
    if name != DEFAULT_CLOUD:
        return False
    file = user_file()
    if not file.exists():
        return True
    clouds: Any = read_mapping(file, should="a clouds.yaml").get("clouds")
    return not isinstance(clouds, dict) or name not in clouds


def ensure_cluster_base(
    name: str,
    paths: Paths,
    *,
    reporter: Reporter,
    config: LocalCloudConfig | None = None,
    version: str = DEFAULT_KUBERNETES_VERSION,
) -> Cloud:
    """All that a cluster on local cloud ``name`` needs: components, the cloud running, node image and nginx in it.

    ``config``: how the cloud is made, where there is none of that name yet. ``version``: of Kubernetes, in the node image.
    Returns the cloud, logged in to.

    Raises UsageError for what the user can change (not root, too little memory), MoyaiError for what went wrong.
    """
    config = config or local.recorded(CloudPaths(paths.cloud(name))) or LocalCloudConfig(name)
    toolchain = Toolchain(paths, reporter)
    kubernetes = kubernetes_component(toolchain, version)

    def upload(results: Mapping[str, Any], step: Progress) -> Cloud:
        # two at once would both find it missing
        with local.locked(name, reporter):
            return _upload(name, results[node_image.NODE], step=step)

    tasks = [
        *cloud_tasks(config, paths, reporter=reporter, toolchain=toolchain),
        *_toolchain_tasks(toolchain, node_image.components(kubernetes)),
        *node_image.tasks(paths, after=(PACKAGES,), kubernetes=kubernetes),
        node_image.nginx_task(paths, after=(PACKAGES,)),
        Task(UPLOAD, upload, (CLOUD, node_image.NODE)),
        Task(PUSH, lambda results, step: _push(config, results[node_image.NGINX], step=step), (CLOUD, node_image.NGINX)),
    ]
    return run_graph(tasks, reporter, workers=len(tasks))[UPLOAD]


def kubernetes_component(toolchain: Toolchain, version: str) -> str:
    """The component of this version of Kubernetes. UsageError where moyai has none."""
    found = toolchain.versions(node_image.KUBERNETES)
    if version not in found:
        known = ", ".join(sorted(found))
        raise UsageError(f"spec.kubernetesVersion: {version!r}, should be one of {known}: moyai makes node images of these")
    return found[version]


@click.command("prepare")
@OUTPUT
@click.option("--tests", is_flag=True, help="And what only moyai's own tests need.")
def prepare(output: str, tests: bool) -> None:
    """Fetch and build all that `up` needs, and start nothing: afterwards `up` needs no network."""
    with display("json" if output == "json" else "text", title="prepare") as progress:
        ensure_everything(default_paths(), progress, tests=tests)


def ensure_everything(paths: Paths, reporter: Reporter, *, tests: bool = False) -> None:
    """Get and make all that ``up`` needs, but start nothing: afterwards ``up`` needs no network.

    ``tests``: and the components and images that only moyai's own tests need.
    """
    local.require_root()
    toolchain = Toolchain(paths, reporter)
    names = ("registry", *node_image.COMPONENTS, *(toolchain.needed_by("test") if tests else ()))
    tasks = [
        _packages_task(),
        _environment_task(paths),
        *_toolchain_tasks(toolchain, names),
        *node_image.tasks(paths, after=(PACKAGES,)),
        node_image.nginx_task(paths, after=(PACKAGES,)),
        *([e2e_images.task(paths, after=(PACKAGES,))] if tests else []),
    ]
    run_graph(tasks, reporter, workers=len(tasks))


def ensure_e2e_images(paths: Paths, reporter: Reporter) -> Path:
    """The archive of the images that Kubernetes' own tests start, made if it is missing."""
    toolchain = Toolchain(paths, reporter)
    tasks = [_packages_task(), *_toolchain_tasks(toolchain, e2e_images.COMPONENTS), e2e_images.task(paths, after=(PACKAGES,))]
    return run_graph(tasks, reporter, workers=len(tasks))[e2e_images.E2E]


def cloud_tasks(
    config: LocalCloudConfig,
    paths: Paths,
    *,
    reporter: Reporter,
    toolchain: Toolchain,
    use_snapshot: bool = True,
    nifcloud: bool = False,
) -> list[Task]:
    """The tasks that bring the local cloud up, from nothing if need be; the last is ``CLOUD``."""
    local.require_root()
    registry = TASK_PREFIX + "registry"

    def start(results: Mapping[str, Any], _: Progress) -> None:
        program = results[registry].files["registry"]
        local.up(config, paths, reporter=reporter, registry=program, use_snapshot=use_snapshot, nifcloud=nifcloud)

    return [
        _packages_task(),
        _environment_task(paths),
        *_toolchain_tasks(toolchain, ("registry",)),
        Task(CLOUD, start, (PACKAGES, ENVIRONMENT, registry)),
    ]


def _packages_task() -> Task:
    return Task(PACKAGES, lambda _, step: packages.ensure(step, extra=(*HOST_PACKAGES, *env.host_packages())))


def _environment_task(paths: Paths) -> Task:
    return Task(ENVIRONMENT, lambda _, step: env.ensure(paths, step), (PACKAGES,))


def _toolchain_tasks(toolchain: Toolchain, names: Sequence[str]) -> list[Task]:
    plain = [name for name in names if not toolchain.needs_compiler(name)]
    compiled = [name for name in names if toolchain.needs_compiler(name)]
    return [*toolchain.tasks(plain), *(toolchain.tasks(compiled, after=(PACKAGES,)) if compiled else [])]


def _upload(name: str, image: node_image.NodeImage, *, step: Progress) -> Cloud:
    """Put the node image into the local cloud; returns the cloud."""
    # imported here: nothing else in this module needs them; the local cloud is an OpenStack
    from moyai.cloud import openstack
    from moyai.cloud.factory import ADAPTERS
    from moyai.lifecycle.cloud_image import ensure_image

    def unpack(uploaded: Image) -> None:
        step.progress("unpacking on the hypervisors")
        # only Nova has such a call, and only for administrators; so no protocol has it
        openstack.connect(f"{name}-admin").machines.precache_image(uploaded.id)

    go_past_proxies(name, default_paths())
    cloud = ADAPTERS.connect(name)
    ensure_image(cloud, image.path, version=image.version, key=image.key, progress=step, uploaded=unpack)
    return cloud


def _push(config: LocalCloudConfig, archive: Path, *, step: Progress) -> None:
    from moyai.images.registry import Registry

    try:
        Registry(f"http://{config.address}:{PORTS['registry']}").push(archive, step.progress)
    except OSError as error:
        raise MoyaiError(f"the cloud's registry does not take nginx's image: {error}") from error

"""``moyai openstack``: the OpenStack client on the cloud that is meant, from the local cloud's environment or the user's own.

Every argument is the client's own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence

import click

from moyai.cli.cluster import CLUSTER_VARIABLE, chosen_cloud, recorded
from moyai.cli.local_way import go_past_proxies
from moyai.core.errors import Terminal, UsageError
from moyai.core.paths import Paths, default_paths

#: The client's own ways to say where it logs in: with one of them nothing is added.
_CHOOSES = ("--os-cloud", "--os-auth-", "--os-endpoint", "--os-token")


@click.command(
    "openstack",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def openstack(words: tuple[str, ...]) -> None:
    """Run the OpenStack client; every argument is the client's.

    Without --os-cloud and OS_* variables: on the cloud of the cluster ($MOYAI_CLUSTER, or the only one there is), else on the
    local cloud.
    """
    from moyai.linux.process import become

    paths = default_paths()
    program, env = _client(paths)
    if not any(word.startswith(_CHOOSES) for word in words):
        cloud = chosen_cloud() or cloud_meant(paths)
        go_past_proxies(cloud, paths)
        if not chosen_cloud():
            env["OS_CLOUD"] = cloud
    become([program, *words], env=env)


def _client(paths: Paths) -> tuple[str, dict[str, str]]:
    """The program and its variables. Terminal where this machine has none."""
    from moyai.localcloud import env

    if found := env.find(paths):
        # the caller's packages must not be taken for the environment's
        return found.program("openstack"), {"PYTHONPATH": ""}
    if program := shutil.which("openstack"):
        return program, {}
    hint = "`pipx install python-openstackclient` installs it; `moyai cloud up` installs one as well"
    raise Terminal("there is no OpenStack client on this machine", hint=hint)


def cloud_meant(paths: Paths, environ: Mapping[str, str] = os.environ) -> str:
    """The cloud of the clusters on record, else the local one. UsageError where that is not one cloud."""
    from moyai.cli.prepare import DEFAULT_CLOUD
    from moyai.lifecycle.record import Record

    if environ.get(CLUSTER_VARIABLE):
        return recorded(None).cloud
    clusters = (Record.open(paths, name) for name in Record.names(paths))
    clouds = {record.cloud for record in clusters if record}
    return _only(clouds) or _only(_local_clouds(paths)) or DEFAULT_CLOUD


def _local_clouds(paths: Paths) -> list[str]:
    from moyai.localcloud.layout import CloudPaths

    return [record.parent.name for record in paths.cloud("x").parent.glob(f"*/{CloudPaths(paths.cloud('x')).record.name}")]


def _only(names: Sequence[str] | set[str]) -> str:
    if len(names) > 1:
        raise UsageError("which cloud?", hint=f"there are {', '.join(sorted(names))}; name one with --os-cloud")
    return next(iter(names), "")

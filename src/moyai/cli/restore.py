"""``moyai restore``: a cluster from a backup, on new machines.

Thin: reads arguments, calls ``lifecycle.restore_cluster``, prints.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moyai.cli.backup import IDENTITY, PASSPHRASE, opener
from moyai.cli.display import reporter as display
from moyai.cli.tables import print_table
from moyai.cli.terminal import OUTPUT, PATH, say, say_lines
from moyai.core.errors import UsageError
from moyai.core.ids import RESTORED
from moyai.core.paths import Paths, default_paths
from moyai.core.progress import Reporter

if TYPE_CHECKING:
    from moyai.cloud.capabilities import Cloud
    from moyai.lifecycle.backup.encryption import Opener


@click.command()
@click.argument("file", type=PATH)
@click.option("--cloud", default="", help="Restore into this cloud or project.  [default: that of the backup]")
@click.option("--spec", type=PATH, help="A changed spec of the same cluster instead of the one in the backup.")
@IDENTITY
@PASSPHRASE
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option(
    "--rehearse", is_flag=True, help="Try it on a throw-away machine beside the living cluster, and remove the machine."
)
@OUTPUT
def restore(
    file: Path,
    *,
    cloud: str,
    spec: Path | None,
    identity: tuple[Path, ...],
    passphrase_file: Path | None,
    dry_run: bool,
    rehearse: bool,
    output: str,
) -> None:
    """Make the cluster of the backup FILE again, on new machines.

    It is refused while the cluster lives or has machines of its control plane. What the cloud has and the backup does not know
    is listed, and stays. An interrupted restore goes on with the same command.
    """
    from moyai.cli.cluster import connect
    from moyai.core.clock import SystemClock
    from moyai.lifecycle import restore_cluster
    from moyai.plan import text
    from moyai.spec.load import load

    if rehearse and (dry_run or spec):
        raise UsageError("--rehearse goes without --dry-run and --spec")
    key, paths, clock = opener(identity, passphrase_file), default_paths(), SystemClock()
    wanted = restore_cluster.RestoreWish(cloud, load(spec).cluster if spec else None)
    if dry_run:
        plan = restore_cluster.preview(file, key, wanted=wanted, connect=connect, paths=paths, clock=clock)
        say_lines(text.lines(plan)) if output == "text" else say(json.dumps(text.data(plan), indent=1))
        return
    if rehearse:
        _rehearse(file, key, cloud=cloud, output=output)
        return
    with display("json" if output == "json" else "text", title=f"restore {file.name}") as progress:
        done = restore_cluster.restore(
            file,
            key,
            wanted=wanted,
            connect=lambda name: _connected(name, paths, progress=progress),
            paths=paths,
            reporter=progress,
            clock=clock,
            etcdutl=lambda: _etcdutl(paths, progress),
        )
    if output == "json":
        data = {"cluster": done.up.name, "uid": done.up.uid, "api": done.up.api, "nodes": list(done.up.nodes)}
        data |= {"kubeconfig": str(done.up.kubeconfig), "notes": list(done.up.notes), "unknown": list(done.unknown)}
        say(json.dumps({**data, "backup": asdict(done.manifest)}, indent=1))
        return
    say(f"cluster {done.up.name} is restored from a backup of {done.manifest.made}: API {done.up.api}")
    say(f"  kubeconfig  {done.up.kubeconfig}")
    if done.unknown:
        say(f"the backup does not list these objects; the controllers keep them while kube-system has ConfigMap {RESTORED}:")
        say_lines(f"  {line}" for line in done.unknown)


def _rehearse(file: Path, key: Opener, *, cloud: str, output: str) -> None:
    from moyai.core.clock import SystemClock
    from moyai.lifecycle.rehearse import rehearse

    paths = default_paths()
    with display("json" if output == "json" else "text", title=f"rehearsal of {file.name}") as progress:
        done = rehearse(
            file,
            key,
            cloud_name=cloud,
            connect=lambda name: _connected(name, paths, progress=progress),
            paths=paths,
            reporter=progress,
            clock=SystemClock(),
            etcdutl=lambda: _etcdutl(paths, progress),
        )
    if output == "json":
        say(json.dumps(asdict(done), indent=1))
        return
    of = f"a backup of cluster {done.manifest.cluster} of {done.manifest.made}"
    say(f"{file} can be restored: {of}, in {done.seconds:.0f} s\n")
    print_table(("KIND", "OBJECTS"), [(kind, str(count)) for kind, count in done.found])


def _connected(name: str, paths: Paths, *, progress: Reporter) -> Cloud:
    """A local cloud with all that a cluster needs, or another one as it is."""
    from moyai.cli import prepare
    from moyai.cli.cluster import connect

    return prepare.ensure_cluster_base(name, paths, reporter=progress) if prepare.is_local(name, paths) else connect(name)


def _etcdutl(paths: Paths, reporter: Reporter) -> Path:
    from moyai.toolchain import Toolchain

    return Toolchain(paths, reporter).ensure(["etcdutl"])["etcdutl"].files["etcdutl"]

"""``moyai up``, ``plan``, ``status``, ``kubeconfig``, ``kubectl``, ``ssh``, ``down``: clusters on the command line.

Thin: reads arguments, connects to the cloud of the spec, calls ``lifecycle``, prints. Progress goes to standard error, results
to standard output.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moyai.cli.display import reporter as display
from moyai.cli.display import seconds
from moyai.cli.local_way import chosen_cloud
from moyai.cli.status_tables import print_status
from moyai.cli.tables import print_table
from moyai.cli.terminal import CLUSTER, OUTPUT, PATH, say, say_lines
from moyai.core.errors import MoyaiError, Terminal, UsageError
from moyai.core.paths import Paths, default_paths, home_folder
from moyai.core.printable import printable
from moyai.core.progress import Reporter

if TYPE_CHECKING:
    from moyai.cloud.capabilities import Cloud
    from moyai.lifecycle.apply import ServiceEndpoint
    from moyai.lifecycle.down import DownReport
    from moyai.lifecycle.record import Record
    from moyai.lifecycle.up import UpResult
    from moyai.spec.load import LoadedSpec
    from moyai.spec.model import Cluster

SPECS = click.argument("specs", metavar="[SPEC]...", nargs=-1, type=PATH)
#: Which cluster is meant when there are several and none is named.
CLUSTER_VARIABLE = "MOYAI_CLUSTER"


@click.command()
@SPECS
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@click.option("--replace", metavar="NODE", default="", help="Make a new machine in the place of this control plane.")
@OUTPUT
def up(specs: tuple[Path, ...], dry_run: bool, *, replace: str, output: str) -> None:
    """Build the cluster of SPEC (a file, - for standard input, or a folder with cluster.yaml and manifests).

    A cluster that exists is brought to its spec.

    Several of them make one spec together, as Spruce merges files: each is laid on top of those before it.

    Without SPEC: one control plane and two workers, called quickstart, on the local cloud.
    """
    loaded = load_spec(*specs)
    if dry_run:
        _show_plan(loaded, output, replaced=replace)
        return
    from moyai.cli import prepare
    from moyai.lifecycle import apply as manifests
    from moyai.lifecycle.up import up as build
    from moyai.lifecycle.up import version_of

    paths = default_paths()
    name = loaded.cluster.spec.cloud
    wanted, local = manifests.read(loaded.manifests), prepare.is_local(name, paths)
    # a cloud of one's own needs kubectl for manifests alone: it is looked for before anything is made
    program = _kubectl(paths, loaded.cluster) if loaded.manifests and not local else None
    version = version_of(loaded.cluster, paths)
    with display("json" if output == "json" else "text", title=f"cluster {loaded.cluster.name}") as progress:
        cloud = prepare.ensure_cluster_base(name, paths, reporter=progress, version=version) if local else connect(name)
        result = build(loaded.cluster, cloud, paths=paths, reporter=progress, replaced=replace)
        if loaded.manifests and local:
            program = _kubectl(paths, loaded.cluster)
        changes, endpoints = _apply(loaded, wanted, result=result, program=program, progress=progress)
    unchanged = not result.changed and not changes
    _summary(result, changes, endpoints=endpoints, output=output, unchanged=unchanged, example=bool(loaded.manifests))


@click.command()
@SPECS
@OUTPUT
def plan(specs: tuple[Path, ...], output: str) -> None:
    """Show what `up` would do with SPEC, and do nothing."""
    _show_plan(load_spec(*specs), output)


@click.command()
@CLUSTER
@OUTPUT
def status(cluster: str | None, output: str) -> None:
    """Nodes, machines, add-ons, load balancers and certificates of a cluster. Exit code 1 when something does not work."""
    from moyai.lifecycle.status import read

    record = recorded(cluster, newest=True)
    found = read(record, connect(record.cloud))
    if output == "json":
        say(json.dumps(found.data(), indent=1))
    else:
        print_status(found)
    if found.problems:
        sys.exit(1)


@click.command()
@CLUSTER
@click.option("--write", is_flag=True, help="Merge it into your kubeconfig instead of printing it.")
@click.option("--file", type=PATH, help="Which kubeconfig to merge into.  [default: $KUBECONFIG or ~/.kube/config]")
@click.option("--overwrite-existing", is_flag=True, help="Replace entries of the same name that lead to another cluster.")
@click.option("--user", help="Make one for this person, with a certificate that ends soon, instead of the administrator's.")
@click.option("--group", "groups", multiple=True, help="With --user: a group of this person; several are possible.")
@click.option("--for", "life", metavar="TIME", help="With --user: how long it counts, for example 30m or 8h.  [default: 8h]")
def kubeconfig(
    cluster: str | None,
    write: bool,
    *,
    file: Path | None,
    overwrite_existing: bool,
    user: str | None,
    groups: tuple[str, ...],
    life: str | None,
) -> None:
    """Print a cluster's kubeconfig, or merge it into yours.

    With --user, it is one for another person: it gives the rights that roles of the cluster give this name and these groups.
    """
    from moyai.lifecycle import kubeconfig
    from moyai.lifecycle.clusters import require_kubeconfig

    if user is None and (groups or life is not None):
        raise UsageError("--group and --for go with --user")
    record = recorded(cluster)
    if user is not None:
        from moyai.core.clock import SystemClock
        from moyai.lifecycle.personal import parse_life, personal_kubeconfig

        text = personal_kubeconfig(record, user, groups=groups, life=parse_life(life or "8h"), clock=SystemClock())
    else:
        text = kubeconfig.own_text(require_kubeconfig(record))
    if not write and file is None:
        say(text, end="")
        return
    target = file or user_kubeconfig()
    context = kubeconfig.merge_kubeconfig(text, target, overwrite=overwrite_existing)
    say(f"context {context} is in {target} and is the current one")


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []})
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def kubectl(words: tuple[str, ...]) -> None:
    """Run kubectl against a cluster; which one: $MOYAI_CLUSTER, else the only one there is.

    It is the pinned kubectl if that is installed, else the first one on the PATH within one minor version of the cluster's API
    server, else the pinned one is fetched.
    """
    from moyai.cli.local_way import go_past_proxies
    from moyai.lifecycle.clusters import require_kubeconfig
    from moyai.linux.process import become

    record = recorded(None)
    file = require_kubeconfig(record)
    paths = default_paths()
    program = _kubectl(paths, record.cluster)
    go_past_proxies(record.cloud, paths)
    become([program, *words], env={"KUBECONFIG": str(file)})


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--cluster", help="Which cluster.")
@click.option("--user", default="debian", show_default=True, help="The image's login user.")
@click.argument("node")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def ssh(cluster: str | None, user: str, *, node: str, words: tuple[str, ...]) -> None:
    """Log in to NODE, or run a command on it."""
    from moyai.lifecycle.ssh import ssh_command
    from moyai.linux.process import become

    become(ssh_command(recorded(cluster), node, words=words, user=user))


@click.command()
@CLUSTER
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--uid", default="", help="Which cluster, when this machine has no record of it.")
@click.option("--cloud", "cloud_name", default="", help="Which cloud, when this machine has no record of the cluster.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@OUTPUT
def down(cluster: str | None, yes: bool, *, uid: str, cloud_name: str, dry_run: bool, output: str) -> None:
    """Remove a cluster with everything that belongs to it, and list what became of each object."""
    from moyai.lifecycle import down as teardown
    from moyai.lifecycle import kubeconfig
    from moyai.lifecycle.record import Record
    from moyai.plan import text

    paths = default_paths()
    name = _name(cluster, paths) if cluster or not uid else ""
    record = Record.open(paths, name) if name else None
    cloud = connect(cloud_name or (record.cloud if record else "moyai"))
    target, record = teardown.target_of(name, paths, cloud=cloud, uid=uid)
    if dry_run:
        plan = teardown.preview(target, record, cloud=cloud)
        say_lines(text.lines(plan)) if output == "text" else say(json.dumps(text.data(plan), indent=1))
        return
    if not yes and sys.stdin.isatty():
        click.confirm(printable(f"Delete cluster {target.name} ({target.uid}) and everything in it?"), abort=True, err=True)
    file = record.folder / "kubeconfig" if record else None
    entries = ""
    # a damaged one keeps no cluster from going
    with suppress(MoyaiError):
        entries = kubeconfig.own_text(file) if file and file.exists() else ""
    with display("json" if output == "json" else "text", title=f"down {target.name}") as progress:
        report = teardown.down(target, record, cloud=cloud, paths=paths, reporter=progress)
    if not report.left and entries:
        kubeconfig.remove_from_kubeconfig(entries, user_kubeconfig())
    _print_report(report, output)
    teardown.check(report)


# ---- what the commands share


def connect(name: str) -> Cloud:
    """The cloud of this name; nothing is sent yet."""
    from moyai.cli.local_way import go_past_proxies
    from moyai.cloud.factory import ADAPTERS

    go_past_proxies(name, default_paths())

    return ADAPTERS.connect(name)


def load_spec(*paths: Path) -> LoadedSpec:
    """The spec, with flannel's configuration if it names one; where it names no cloud, $OS_CLOUD or $OS_AUTH_URL does, as for
    every OpenStack client."""
    from moyai.spec.load import load

    loaded = load(*paths)
    if loaded.cluster.spec.network.net_conf:
        from moyai.lifecycle.flannel_conf import with_net_conf

        loaded = replace(loaded, cluster=with_net_conf(loaded.cluster, file=loaded.source))
    spec, chosen = loaded.cluster.spec, chosen_cloud()
    if not chosen or "cloud" in spec.model_fields_set:
        return loaded
    return replace(loaded, cluster=loaded.cluster.in_cloud(chosen))


def _name(given: str | None, paths: Paths) -> str:
    """The cluster's name: as given, or that of the spec given, or the only one recorded."""
    from moyai.core.ids import is_dns_label
    from moyai.lifecycle.record import Record

    given = given or os.environ.get(CLUSTER_VARIABLE)
    if given:
        if not is_dns_label(given) or (Path(given) / "cluster.yaml").exists():
            from moyai.spec.load import load

            return load(Path(given)).cluster.name
        return given
    names = Record.names(paths)
    if len(names) == 1:
        return names[0]
    if not names:
        raise UsageError("there is no cluster", hint="`moyai up` makes one")
    raise UsageError("which cluster?", hint=f"there are {', '.join(names)}; name one, or set {CLUSTER_VARIABLE}")


def recorded(given: str | None, *, newest: bool = False) -> Record:
    """The record of the cluster that is meant: named, or of the spec named, or the only one. ``newest``: the cluster's copy
    takes its place where that is the newer one."""
    from moyai.lifecycle.clusters import require

    paths = default_paths()
    name = _name(given, paths)
    if newest:
        take_newest(paths, name)
    return require(paths, name)


def take_newest(paths: Paths, name: str) -> None:
    """Bring this machine's record of the cluster to the cluster's own copy, where that is the newer one, and say so."""
    from moyai.lifecycle.work import take_newer

    take_newer(paths, name, tell=lambda line: say(f"note: {line}", err=True))


def _kubectl(paths: Paths, cluster: Cluster) -> Path:
    """The kubectl for a cluster; progress is shown only where it must be got."""
    from moyai.toolchain import Toolchain, find_kubectl, get_kubectl

    server = cluster.spec.kubernetes_version
    if found := find_kubectl(Toolchain(paths, Reporter()), server=server):
        return found
    with display("text", title="kubectl") as progress:
        return get_kubectl(Toolchain(paths, progress), server=server, reporter=progress)


def user_kubeconfig() -> Path:
    """The file that kubectl would use."""
    chosen = [entry for entry in os.environ.get("KUBECONFIG", "").split(os.pathsep) if entry]
    return Path(chosen[0]) if chosen else home_folder() / ".kube" / "config"


def _apply(
    loaded: LoadedSpec, wanted: object, *, result: UpResult, program: Path | None, progress: Reporter
) -> tuple[list[str], list[ServiceEndpoint]]:
    """Apply the manifests beside the spec with ``program`` (None: there are none) and wait for them.

    Returns (kubectl's lines about changes, where Services answer).
    """
    from moyai.core.clock import SystemClock
    from moyai.kube.quick import KubeApi
    from moyai.lifecycle import apply as manifests

    if program is None:
        return [], []
    assert isinstance(wanted, manifests.Awaited)
    with progress.step("apply manifests"):
        applied = manifests.apply(loaded.manifests, kubectl=program, kubeconfig=result.kubeconfig)
    with progress.step("workloads answer") as step:
        endpoints = manifests.wait(KubeApi.from_file(result.kubeconfig), wanted, clock=SystemClock(), progress=step)
    return [str(one) for one in applied if one.changed], endpoints


def _show_plan(loaded: LoadedSpec, output: str, *, replaced: str = "") -> None:
    from moyai.cli import prepare
    from moyai.lifecycle.up import preview
    from moyai.plan import text

    paths = default_paths()
    name = loaded.cluster.spec.cloud
    if prepare.is_local(name, paths) and not paths.cloud(name).exists():
        raise Terminal(
            f"the local cloud {name} does not run yet", hint="`moyai cloud up` starts it, and a plan needs to look at it"
        )
    take_newest(paths, loaded.cluster.name)
    found = preview(loaded.cluster, connect(name), paths=paths, replaced=replaced)
    say_lines(text.lines(found)) if output == "text" else say(json.dumps(text.data(found), indent=1))


def _summary(
    result: UpResult, changes: list[str], *, endpoints: list[ServiceEndpoint], output: str, unchanged: bool, example: bool
) -> None:
    if output == "json":
        data = asdict(result) | {"kubeconfig": str(result.kubeconfig), "seconds": dict(result.seconds)}
        data |= {"changed": not unchanged, "manifests": changes, "endpoints": [asdict(end) for end in endpoints]}
        say(json.dumps(data, indent=1))
        return
    if unchanged:
        say(f"cluster {result.name} is as its spec says: nothing to do")
    else:
        say(f"cluster {result.name} is up: {len(result.nodes)} nodes, API {result.api}")
    for end in endpoints:
        say(f"  {end.service} answers at {end.url}")
    say(f"  kubeconfig  {result.kubeconfig}")
    if unchanged:
        return
    slow = sorted(result.own_seconds.items(), key=lambda item: -item[1])
    phases = ", ".join(f"{name} {seconds(value)}" for name, value in slow[:6])
    say(f"  longest     {phases}")
    tries = ["moyai kubectl get nodes -o wide", "moyai status", f"moyai ssh {result.nodes[-1]}"]
    if endpoints:
        tries.insert(0, f"curl {endpoints[0].url}")
    elif not example:
        tries.append("moyai up examples/quickstart")
    say("  try         " + "\n              ".join(tries))


def _print_report(report: DownReport, output: str) -> None:
    if output == "json":
        say(json.dumps(report.data(), indent=1))
        return
    rows = [(entry.outcome, entry.kind, entry.name, entry.id) for entry in report.entries]
    print_table(("OUTCOME", "KIND", "NAME", "ID"), rows)
    for entry in report.entries:
        if entry.why:
            say(f"{entry.outcome}: {entry.kind} {entry.name}: {entry.why}")
    counts = report.data()
    say(f"cluster {report.name}: {counts['gone']} gone, {counts['kept']} kept on purpose, {counts['left']} left")

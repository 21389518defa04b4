"""``moyai join`` and ``moyai export``: a cluster's record on another machine.

Thin: reads arguments, calls ``lifecycle.joining`` and ``lifecycle.record_export``, prints. Keys and passphrases come from files
or from the terminal.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moyai.cli.backup import IDENTITY, PASSPHRASE, opener, passphrase_of
from moyai.cli.terminal import CLUSTER, OUTPUT, PATH, say
from moyai.core.errors import UsageError
from moyai.core.paths import default_paths

if TYPE_CHECKING:
    from moyai.lifecycle.joining import JoinSource


@click.command()
@click.argument("name")
@click.option(
    "--kubeconfig", type=PATH, help="An administrator's kubeconfig of the cluster.  [default: $KUBECONFIG or ~/.kube/config]"
)
@click.option("--ssh", "host", metavar="HOST", help="Read the record on this control plane, as you log in to it by ssh.")
@click.option("--file", type=PATH, help="Take the record from this file of `moyai export` or `moyai backup`.")
@IDENTITY
@PASSPHRASE
@OUTPUT
def join(
    name: str,
    *,
    kubeconfig: Path | None,
    host: str | None,
    file: Path | None,
    identity: tuple[Path, ...],
    passphrase_file: Path | None,
    output: str,
) -> None:
    """Take over the record of cluster NAME, so that this machine can scale, upgrade and remove it.

    The record comes from the cluster itself, by a kubeconfig or by a login to a control plane, or from a file. Of a kubeconfig,
    the context NAME counts, else the current one.
    """
    from moyai.cli.cluster import connect
    from moyai.core.clock import SystemClock
    from moyai.lifecycle.joining import join as take_over

    if sum(one is not None for one in (kubeconfig, host, file)) > 1:
        raise UsageError("--kubeconfig, --ssh and --file: one at most")
    if file is None and (identity or passphrase_file is not None):
        raise UsageError("--identity and --passphrase-file open a file", hint="--file names it")
    if file is not None:
        from moyai.lifecycle.record_export import exported

        source = exported(file, opener(identity, passphrase_file))
    else:
        source = _of_cluster(name, kubeconfig, host=host)
    paths = default_paths()
    done = take_over(name, source, connect=connect, paths=paths, clock=SystemClock())
    if file is not None:
        from moyai.cli.cluster import take_newest

        take_newest(paths, name)
    if output == "json":
        say(json.dumps({**asdict(done), "folder": str(done.folder)}, indent=1))
        return
    if not done.changed:
        say(f"this machine has the record of cluster {name} already: write {done.serial}")
        return
    say(f"cluster {name} ({done.uid}) on cloud {done.cloud} is joined: its record is in {done.folder}")
    say(f"  try         moyai status {name}\n              moyai kubeconfig {name} --write")


def _of_cluster(name: str, kubeconfig: Path | None, *, host: str | None) -> JoinSource:
    from moyai.cli.cluster import user_kubeconfig
    from moyai.lifecycle.admin_access import copy_by_kubeconfig, copy_by_login, kubeconfig_access
    from moyai.lifecycle.joining import JoinSource

    if host is not None:
        found = copy_by_login(host, name)
        return JoinSource(found.files, f"{host}: {found.said}")
    file = kubeconfig or user_kubeconfig()
    if not file.exists():
        raise UsageError(
            f"there is no kubeconfig {file}", hint="--kubeconfig names one of the cluster; --ssh and --file are other ways"
        )
    access = kubeconfig_access(file, name)
    found = copy_by_kubeconfig(access, name)
    return JoinSource(found.files, f"the cluster's copy ({found.said})", access.authorities)


@click.command()
@CLUSTER
@click.option("--file", type=PATH, required=True, help="The file to write.")
@click.option(
    "--recipient", "-r", "recipients", multiple=True, metavar="KEY",
    help="Encrypt for this public key of age (age1…) or SSH; several are possible.",
)  # fmt: skip
@PASSPHRASE
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@OUTPUT
def export(
    cluster: str | None, file: Path, *, recipients: tuple[str, ...], passphrase_file: Path | None, force: bool, output: str
) -> None:
    """Write the record of CLUSTER to one encrypted file, for a vault.

    It has the authorities and keys, but nothing of etcd. It is encrypted with age, for the owners of keys or with a passphrase.
    Without either, the terminal asks for a passphrase. `moyai join NAME --file FILE` takes the cluster over.
    """
    from moyai.cli.cluster import recorded
    from moyai.core.clock import SystemClock
    from moyai.lifecycle.backup.encryption import parse_recipients
    from moyai.lifecycle.record_export import export_record

    passphrase = "" if recipients and passphrase_file is None else passphrase_of(passphrase_file, confirm=True)
    wanted = parse_recipients(recipients, passphrase)
    name = recorded(cluster, newest=True).name
    made = export_record(name, file, recipients=wanted, replaces=force, paths=default_paths(), clock=SystemClock())
    if output == "json":
        say(json.dumps(asdict(made), indent=1))
        return
    say(f"{file} has the record of cluster {made.cluster} ({made.uid}) on cloud {made.cloud}: {len(made.entries)} files")

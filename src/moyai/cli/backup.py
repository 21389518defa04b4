"""``moyai backup``: a backup of a cluster in one encrypted file, and what is in such a file.

Thin: reads arguments, calls ``lifecycle.backup``, prints. Keys and passphrases come from files or from the terminal, never from
the command line, which everybody on the machine can read.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moyai.cli.display import reporter as display
from moyai.cli.tables import print_table
from moyai.cli.terminal import CLUSTER, OUTPUT, PATH, say
from moyai.core.errors import UsageError
from moyai.core.paths import default_paths
from moyai.core.reading import STANDARD_INPUT, read_text

if TYPE_CHECKING:
    from moyai.lifecycle.backup import BackupManifest
    from moyai.lifecycle.backup.encryption import Opener

#: Bytes; no key and no passphrase is that long.
_LIMIT = 1 << 16
PASSPHRASE = click.option(
    "--passphrase-file", type=PATH, help="A file whose first line is the passphrase; - for standard input."
)
IDENTITY = click.option("--identity", "-i", type=PATH, multiple=True, help="A file with a private key of age or SSH.")


@click.command()
@CLUSTER
@click.option("--file", type=PATH, help="The file of the backup.")
@click.option("--scheduled", is_flag=True, help="Make one as spec.backup says, if the youngest one is old enough; for cron.")
@click.option(
    "--recipient", "-r", "recipients", multiple=True, metavar="KEY",
    help="Encrypt for this public key of age (age1…) or SSH; several are possible.",
)  # fmt: skip
@PASSPHRASE
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@click.option("--inspect", is_flag=True, help="Say what is in the file, and make none.")
@IDENTITY
@OUTPUT
def backup(
    cluster: str | None,
    file: Path | None,
    *,
    scheduled: bool,
    recipients: tuple[str, ...],
    passphrase_file: Path | None,
    force: bool,
    inspect: bool,
    identity: tuple[Path, ...],
    output: str,
) -> None:
    """Write all that CLUSTER can be restored from to one encrypted file.

    It holds etcd's snapshot, the authorities and keys, the spec and the record, but not what is on volumes.

    It is encrypted with age, for the owners of keys or with a passphrase. Without either, the terminal asks for a passphrase.
    """
    from moyai.lifecycle import backup as backups
    from moyai.lifecycle.backup.encryption import parse_recipients

    if scheduled:
        if file is not None or recipients or passphrase_file is not None or force or inspect or identity:
            raise UsageError("--scheduled goes without other options", hint="spec.backup says all of it")
        _take_scheduled(cluster, output)
        return
    if file is None:
        raise UsageError("--file: left out, should be the backup's file", hint="--scheduled takes the folder of spec.backup")
    if inspect:
        _show(backups.read(file, opener(identity, passphrase_file)).manifest, output, head=f"{file} is whole")
        return
    if identity:
        raise UsageError("--identity opens a backup that is there", hint="--recipient takes the public key to encrypt for")
    from moyai.cli.cluster import recorded
    from moyai.core.clock import SystemClock

    passphrase = "" if recipients and passphrase_file is None else passphrase_of(passphrase_file, confirm=True)
    wanted = parse_recipients(recipients, passphrase)
    name = recorded(cluster).name
    with display("json" if output == "json" else "text", title=f"backup of {name}") as progress:
        made = backups.take(
            name, file, recipients=wanted, replaces=force, paths=default_paths(), reporter=progress, clock=SystemClock()
        )
    _show(made, output, head=f"{file} has {file.stat().st_size} bytes")


def _take_scheduled(cluster: str | None, output: str) -> None:
    from moyai.cli.cluster import recorded
    from moyai.core.clock import SystemClock
    from moyai.lifecycle.backup.schedule import take_scheduled

    name = recorded(cluster).name
    with display("json" if output == "json" else "text", title=f"backup of {name}") as progress:
        done = take_scheduled(name, paths=default_paths(), reporter=progress, clock=SystemClock())
    if output == "json":
        found = {"made": asdict(done.made) if done.made else None, "file": str(done.file or ""), "deleted": done.deleted}
        say(json.dumps({**found, "status": asdict(done.status)}, indent=1))
    elif done.made is None:
        say(f"cluster {name} has a backup of {done.status.last}: none is due, spec.backup.every is {done.status.every}")
    else:
        say(f"{done.file} is whole; {len(done.deleted)} older ones were deleted")


def opener(identity: tuple[Path, ...], passphrase_file: Path | None) -> Opener:
    """What opens a backup, by the options of a command; the terminal is asked where there are none."""
    from moyai.lifecycle.backup.encryption import Opener

    passphrase = "" if identity and passphrase_file is None else passphrase_of(passphrase_file, confirm=False)
    keys = (read_text(one, limit=_LIMIT, should="a private key of age or SSH").encode() for one in identity)
    return Opener(tuple(keys), passphrase)


def passphrase_of(file: Path | None, *, confirm: bool) -> str:
    """The first line of the file, or what the terminal's user types, ``confirm``: twice."""
    if file is None:
        if not sys.stdin.isatty():
            raise UsageError(
                "the file is encrypted, and there is no terminal to ask for the passphrase",
                hint="--recipient or --passphrase-file" if confirm else "--identity or --passphrase-file",
            )
        return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))
    # at a terminal the line is enough, its end of file is not waited for
    text = sys.stdin.readline(_LIMIT) if file == STANDARD_INPUT else read_text(file, limit=_LIMIT, should="a passphrase")
    text = text.partition("\n")[0]
    if not text.strip():
        raise UsageError(f"{file} has no passphrase in its first line")
    return text.rstrip("\r\n")


def _show(found: BackupManifest, output: str, *, head: str) -> None:
    if output == "json":
        say(json.dumps(asdict(found), indent=1))
        return
    say(f"{head}: a backup of cluster {found.cluster} ({found.uid}) on cloud {found.cloud}")
    versions = f"Kubernetes {found.kubernetes}, etcd {found.etcd}, revision {found.revision}"
    say(f"made {found.made} by moyai {found.moyai}; {versions}\n")
    print_table(("ENTRY", "BYTES", "SHA-256"), [(one.name, str(one.size), one.sha256) for one in found.entries])

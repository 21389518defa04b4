"""The state of a cluster as tables for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from moyai.cli.tables import print_table
from moyai.cli.terminal import say

if TYPE_CHECKING:
    from moyai.lifecycle.status import ClusterStatus, CredentialStatus


def print_status(found: ClusterStatus) -> None:
    say(f"cluster {found.name} ({found.uid}) on cloud {found.cloud}, Kubernetes {found.kubernetes}")
    say(f"API {found.api_url or '-'}: {found.api}\n")
    rows = [(n.name, n.pool, n.zone, n.address or "-", n.machine, n.node, n.version or "-") for n in found.nodes]
    print_table(("NODE", "POOL", "ZONE", "ADDRESS", "MACHINE", "NODE STATE", "VERSION"), rows)
    if found.machines:
        say()
        beside = [(one.name, one.role or "-", ", ".join(one.addresses), one.machine) for one in found.machines]
        print_table(("BESIDE", "ROLE", "ADDRESSES", "MACHINE"), beside)
    if found.control_planes:
        say()
        rows = [(one.name, one.member, "yes" if one.holder else "-") for one in found.control_planes]
        print_table(("CONTROL PLANE", "ETCD", "HOLDS THE ADDRESS"), rows)
    if found.addons:
        say()
        print_table(("ADD-ON", "READY"), [(addon.name, addon.count) for addon in found.addons])
    if found.services:
        say()
        head = ("LOAD BALANCER OF", "ADDRESS", "PORTS")
        print_table(head, [(one.service, one.address or "-", ",".join(map(str, one.ports))) for one in found.services])
    if found.certificates:
        say()
        head = ("CERTIFICATE", "ENDS", "DAYS LEFT", "RENEWED BY")
        print_table(head, [(one.name, one.ends[:10], str(one.days_left), one.renewed_by) for one in found.certificates])
    if found.credentials:
        say()
        print_credentials(found.credentials)
    if found.backup:
        say()
        one = found.backup
        print_table(
            ("BACKUPS IN", "EVERY", "LAST", "REHEARSED"), [(one.to or "-", one.every, one.last or "-", one.rehearsed or "-")]
        )
    lines = [f"upgrade: {found.upgrade.text}"] if found.upgrade else []
    notes = [found.rotation.text, *found.notes] if found.rotation else found.notes
    lines += [*(f"note: {note}" for note in notes), *(f"! {problem}" for problem in found.problems)]
    if lines:
        say("\n" + "\n".join(lines))


def print_credentials(found: Iterable[CredentialStatus]) -> None:
    rows = [(one.name, "its part" if one.limited else "all roles", one.expires[:10] or "-", one.owner or "-") for one in found]
    print_table(("CREDENTIAL", "MAY CALL", "ENDS", "OWNER"), rows)

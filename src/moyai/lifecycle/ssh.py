"""The command line that logs in to a node.

Always holds: nothing that a user names is an option of ssh, and no character of a path is a token of ssh; only the cluster's
own key is offered; a machine that was replaced has another host key, and is not taken for the one before it. Where control
planes take a virtual address in turns, the machine that passes the connection on is whichever holds it, and is not checked: it
sees nothing but what is encrypted for the machine behind it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from moyai.bootstrap.pki import LOGIN_KEY, RSA_LOGIN_KEY
from moyai.core.errors import Terminal, UsageError
from moyai.lifecycle.machine_notes import MachineNotes
from moyai.lifecycle.record import Record
from moyai.plan import keys
from moyai.plan.machines_beside import machine_name
from moyai.plan.nodes import CONTROL_PLANE_POOL, address_in_pool, node_name, pool_of_node
from moyai.spec.beside import MachineSpec

#: The login user of the node image (Debian's cloud-init default).
USER = "debian"
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")


@dataclass(frozen=True)
class SshWay:
    """How ssh reaches a node: the address that is meant, and ssh's options."""

    user: str
    address: str
    options: tuple[str, ...]


def ssh_command(record: Record, node: str, *, words: Sequence[str] = (), user: str = USER) -> list[str]:
    """The command line that logs in to a node. ``node``: its name, with or without the cluster's in front."""
    way = ssh_way(record, node, user=user)
    return ["ssh", *way.options, f"{way.user}@{way.address}", *words]


def ssh_way(record: Record, node: str, *, user: str = USER) -> SshWay:
    """Workers and machines beside the cluster are reached through the control plane's floating address, unless each machine has
    a public one; a machine that a router beside the cluster leads to, through that router as well. ``node``: as of
    ``ssh_command``."""
    if not _USER.fullmatch(user):
        raise UsageError(
            f"--user: {user!r} is no user's name", hint="should be letters, digits, '_', '.' or '-', a letter first"
        )
    cluster, machine = record.cluster, machine_beside(record, node)
    name = machine_name(cluster.name, machine.name) if machine else named_node(record, node)
    if not record.api_address:
        raise Terminal(f"cluster {cluster.name} is not reachable yet", hint="`moyai up` continues to build it")
    if cluster.spec.control_plane.balanced:
        raise Terminal(
            f"there is no way for SSH into cluster {cluster.name}: the load balancer before its API leads to that API alone",
            hint="`kubectl debug node/NAME -it --image=IMAGE --profile=sysadmin` opens a shell on a node",
        )
    plane = node_name(cluster.name, CONTROL_PLANE_POOL, ordinal=0)
    login = record.folder / RSA_LOGIN_KEY
    common = [
        "-i",
        _literal(login if login.exists() else record.folder / LOGIN_KEY),
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "StrictHostKeyChecking=accept-new",
        "-o",
        f'UserKnownHostsFile="{_literal(record.folder / "known_hosts")}"',
        "-o",
        "ConnectTimeout=10",
        "-o",
        "LogLevel=ERROR",
    ]
    if public := MachineNotes(record.folder).address(name):
        # each machine is in the external network itself
        return SshWay(user, public, (*common, "-o", f"HostKeyAlias={_alias(record, name)}"))
    virtual = cluster.spec.control_plane.virtual
    first = [*common, "-o", f"HostKeyAlias={_alias(record, plane)}"]
    if virtual:
        # ssh takes the first value that it is given
        first = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", *common]
    if name == plane and not virtual:
        return SshWay(user, record.api_address, tuple(first))
    way = SshWay(USER if machine else user, record.api_address, tuple(first))
    if machine is not None:
        target = machine.networks[0]
        led = next((one.gateway for one in cluster.spec.networks if one.name == target.network), "")
        if router := next((one for one in cluster.spec.machines if one.name == led), None):
            hop = machine_name(cluster.name, router.name)
            way = SshWay(USER, str(router.networks[0].address), _options(record, common, name=hop, way=way))
        return SshWay(user, str(target.address), _options(record, common, name=name, way=way))
    address = address_in_pool(cluster.spec, pool_of_node(name, cluster.name), allocation=record.allocations[name])
    return SshWay(user, address, _options(record, common, name=name, way=way))


def _options(record: Record, common: Sequence[str], *, name: str, way: SshWay) -> tuple[str, ...]:
    """Those for a machine of this name that is reached through ``way``."""
    # ssh replaces tokens in the whole command line before a shell takes it apart
    jump = f"{_literal(shlex.join(['ssh', *way.options]))} -W %h:%p {shlex.quote(f'{way.user}@{way.address}')}"
    return (*common, "-o", f"HostKeyAlias={_alias(record, name)}", "-o", f"ProxyCommand={jump}")


def machine_beside(record: Record, name: str) -> MachineSpec | None:
    """The machine beside the cluster that is named with or without the cluster's name in front."""
    cluster = record.cluster
    return next((one for one in cluster.spec.machines if name in (one.name, machine_name(cluster.name, one.name))), None)


def named_node(record: Record, node: str) -> str:
    """The whole name of a node that is named with or without the cluster's in front. Raises UsageError for none of its own."""
    cluster, nodes = record.cluster.name, record.allocations
    name = node if node in nodes else f"{cluster}-{node}"
    if name not in nodes:
        raise UsageError(f"cluster {cluster} has no node {node!r}", hint=f"there are {', '.join(sorted(nodes)) or 'none'}")
    return name


def _literal(text: object) -> str:
    """As ssh takes it without looking for tokens in it (TOKENS in ssh_config(5))."""
    return str(text).replace("%", "%%")


def _alias(record: Record, name: str) -> str:
    """A name for the machine's host key that a replaced machine of the same name and address does not have."""
    made = record.objects.get(keys.server(name))
    return f"{name}-{made.id}" if made else name

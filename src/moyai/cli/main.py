"""The ``moyai`` command: its groups, and the one place where errors become a line and an exit code.

Subcommands are imported only when they are called, so that ``moyai kubectl`` and shell completion stay quick. Progress
goes to standard error, results to standard output. No traceback reaches a user: an unforeseen error is written to
a file, and the line says where.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

import click

from moyai import __version__
from moyai.cli.terminal import OutputFull, say
from moyai.core.errors import MoyaiError, NoSpace
from moyai.core.files import FULL, no_space, write_private
from moyai.core.paths import default_paths
from moyai.linux.process import ProcessError

#: Command → where it is defined and its line in the help (kept here so that help imports nothing).
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("moyai.cli.cluster:up", "Build the cluster of a spec, or bring it to its spec; starts a local cloud if asked."),
    "plan": ("moyai.cli.cluster:plan", "Show what `up` would do, and do nothing."),
    "spec": ("moyai.cli.spec:spec", "A cluster's spec as a file: merged from parts."),
    "doctor": ("moyai.cli.doctor:doctor", "What a cloud can do for a cluster, what it lacks, and which spec fits it."),
    "status": ("moyai.cli.cluster:status", "Clusters, their nodes, machines and load balancers."),
    "clusters": ("moyai.cli.clusters:clusters", "Which clusters a cloud holds, whoever made them."),
    "join": ("moyai.cli.join:join", "Take over a cluster that was built on another machine."),
    "export": ("moyai.cli.join:export", "Write a cluster's record to one encrypted file, for a vault."),
    "explain": ("moyai.cli.explain:explain", "Why a pod does not run, and what would help."),
    "net": ("moyai.cli.net:net", "How the network of a cluster stands, and whether its ways work."),
    "bgp": ("moyai.cli.bgp:bgp", "Sessions and routes of the nodes' BGP."),
    "policy": ("moyai.cli.policy:policy", "What network policies on trial would drop."),
    "trace": ("moyai.cli.trace:trace", "The hops of a packet between pods, nodes and Services, and where it ends."),
    "kubeconfig": ("moyai.cli.cluster:kubeconfig", "Print a cluster's kubeconfig, or merge it into yours."),
    "kubectl": ("moyai.cli.cluster:kubectl", "Run kubectl against a cluster."),
    "openstack": ("moyai.cli.openstack:openstack", "Run the OpenStack client on a cluster's cloud, or on the local cloud."),
    "ssh": ("moyai.cli.cluster:ssh", "Log in to a node."),
    "etcd": ("moyai.cli.etcd:etcd", "The state of etcd's members, and how to free unused space of their databases."),
    "upgrade": ("moyai.cli.upgrade:upgrade", "Another version of Kubernetes, machine by machine, and the way back."),
    "certificates": (
        "moyai.cli.certificates:certificates",
        "When certificates end, and how they and the keys behind them are replaced.",
    ),
    "credentials": ("moyai.cli.credentials:credentials", "What a cluster logs in to its cloud with, and how it is replaced."),
    "backup": ("moyai.cli.backup:backup", "Write all that a cluster can be restored from to one encrypted file."),
    "restore": ("moyai.cli.restore:restore", "Make the cluster of a backup again, on new machines."),
    "inventory": ("moyai.cli.inventory:inventory", "A cluster's machines as Ansible's dynamic inventory."),
    "down": (
        "moyai.cli.cluster:down",
        "Remove a cluster with everything that belongs to it, and list what became of each object.",
    ),
    "prepare": ("moyai.cli.prepare:prepare", "Fetch and build all that `up` needs, and start nothing."),
    "cloud": ("moyai.cli.local_cloud:cloud", "The local cloud: a real OpenStack on this machine."),
    "toolchain": ("moyai.cli.toolchain:toolchain", "The pinned upstream components and where they came from."),
    "image": ("moyai.cli.image:image", "Node images for clouds; container images in the local cloud's registry."),
    "agent": ("moyai.cli.agent:agent", "Run the agent of a node (inside a cluster)."),
    "agent-flows": ("moyai.cli.agent:agent_flows", "What policies on trial would have dropped (inside an agent's pod)."),
    "router": ("moyai.cli.agent:router", "FRR of a router beside a cluster (on its machine)."),
    "agent-bgp": ("moyai.cli.agent:agent_bgp", "What this node's FRR says (inside an agent's pod)."),
    "ccm": ("moyai.cli.ccm:ccm", "Run the cloud controller manager (inside a cluster)."),
    "csi": ("moyai.cli.csi:csi", "Run the CSI driver (inside a cluster)."),
}
HIDDEN = frozenset({"agent", "agent-bgp", "agent-flows", "ccm", "csi", "router"})
#: A file system with fewer bytes free counts as full.
_NO_ROOM = 1 << 20


class LazyGroup(click.Group):
    """A click group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if name not in HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="moyai")
def cli() -> None:
    """Kubernetes clusters on a cloud that is yours, moored to it."""


def main() -> None:
    """Entry point of the console script. Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    try:
        result = cli.main(args=arguments, prog_name="moyai", standalone_mode=False)
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except click.Abort:
        return _say("interrupted; run the same command again to continue", 130)
    except KeyboardInterrupt:
        return _say("interrupted; run the same command again to continue", 130)
    except OutputFull as error:
        _leave_output()
        return _say(str(error), error.exit_code)
    except MoyaiError as error:
        return _say(str(error), error.exit_code)
    except ProcessError as error:
        return _say(str(error), 1)
    except PermissionError as error:
        return _say(f"{error.filename}: {error.strerror}", 1)
    except BrokenPipeError:
        # the program that read the output has ended: a message would reach nobody
        _leave_output()
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            return _say(str(no_space(error, error.filename or _full_folders())), NoSpace.exit_code)
        return _say(f"unforeseen error, please report it: {type(error).__name__}: {error}; details {_keep_trace()}", 1)
    return result if isinstance(result, int) else 0


def _say(text: str, code: int) -> int:
    say(f"moyai: {' '.join(text.split())}", err=True)
    return code


def _leave_output() -> None:
    """Python must not try at exit to write what standard output did not take."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _full_folders() -> str:
    """For a write whose file nobody named: where there is no room."""
    paths = default_paths()
    asked = {place for place in (paths.state, paths.cache, Path(os.environ.get("TMPDIR", "/tmp"))) if place.exists()}
    full = [str(place) for place in sorted(asked) if shutil.disk_usage(place).free < _NO_ROOM]
    return f"a file in {' or '.join(full)}" if full else "a file"


def _keep_trace() -> str:
    """Where the traceback is. It is less important than the line that says so."""
    text = traceback.format_exc()
    try:
        file = default_paths().make_state("errors") / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
        write_private(file, text)
    except (OSError, MoyaiError) as error:
        return f"are not kept ({error})"
    return f"in {file}"

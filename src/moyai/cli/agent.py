"""`moyai agent`: the agent of a node, which runs in the cluster. Hidden: nobody types it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from moyai.agent.settings import CONTROLLERS, DEFAULT_CONTROLLERS, AgentOptions
from moyai.cli.terminal import say


@click.command(hidden=True)
@click.option("--node-name", envvar="NODE_NAME", default="", help="Name of this machine's Node.")
@click.option("--controllers", default=",".join(DEFAULT_CONTROLLERS), show_default=True, help="With commas between.")
@click.option("--later-controllers", envvar="MOYAI_CONTROLLERS", default="", help="More of them; an unknown one is left out.")
@click.option(
    "--net-config-path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The pod network's configuration, in the format of flannel's net-conf.json.",
)
@click.option("--bgp-config-path", type=click.Path(path_type=Path, dir_okay=False), help="The configuration of BGP, bgp.json.")
@click.option("--net-conf-text", envvar="MOYAI_NET_CONF", default="", help="The pod network's configuration itself.")
@click.option("--bgp-conf-text", envvar="MOYAI_BGP_CONF", default="", help="The configuration of BGP itself.")
@click.option("--node-files", envvar="MOYAI_NODE_FILES", default="", help="What the node is configured with, as JSON.")
@click.option("--egress", envvar="MOYAI_EGRESS", default="", help="Ranges for egress addresses, as JSON.")
@click.option(
    "--boot-gate",
    envvar="MOYAI_BOOT_GATE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The marker that keeps pods without traffic after a boot, until network policies are applied.",
)
@click.option("--bind", default="127.0.0.1:9810", show_default=True, help="Where probes and metrics are served.")
@click.option("--kubeconfig", type=click.Path(path_type=Path, dir_okay=False), help="Default: as a pod of the cluster.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True)
def agent(
    *,
    node_name: str,
    controllers: str,
    later_controllers: str,
    net_config_path: Path | None,
    bgp_config_path: Path | None,
    net_conf_text: str,
    bgp_conf_text: str,
    node_files: str,
    egress: str,
    boot_gate: Path | None,
    bind: str,
    kubeconfig: Path | None,
    log_level: str,
) -> None:
    """Run the agent of a node."""
    from moyai.agent.app import main
    from moyai.runtime.controller_names import wanted_controllers

    options = AgentOptions(
        node=node_name,
        controllers=wanted_controllers(controllers, later_controllers, known=CONTROLLERS),
        net_conf=net_config_path,
        net_conf_text=net_conf_text,
        node_files=node_files,
        egress=egress,
        bgp_conf=bgp_config_path,
        bgp_conf_text=bgp_conf_text,
        boot_gate=boot_gate,
        bind=bind,
        kubeconfig=kubeconfig,
        log_level=log_level,
    )
    sys.exit(main(options))


@click.command("agent-flows", hidden=True)
def agent_flows() -> None:
    """Print what policies on trial would have dropped on this node, as JSON."""
    from moyai.agent.policy.flows import noted_flows

    say(json.dumps([asdict(one) for one in noted_flows()]))


@click.command("agent-bgp", hidden=True)
def agent_bgp() -> None:
    """Print the sessions and routes of this node's FRR, as JSON."""
    from moyai.agent.bgp.seen import read_bgp

    say(json.dumps(asdict(read_bgp())))


@click.command("router", hidden=True)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), required=True, help="FRR's commands, as JSON.")
def router(config: Path) -> None:
    """Run FRR on a router beside a cluster."""
    from moyai.agent.router_machine import run_router

    sys.exit(run_router(config))

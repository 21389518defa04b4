"""The agent as a process: its options, its probes, and that it runs with whatever controllers are asked for."""

from __future__ import annotations

import asyncio

import pytest

from moyai.agent.app import agent
from moyai.agent.settings import AgentOptions, check_options
from moyai.cli.main import run
from moyai.core.errors import UsageError
from moyai.runtime.metrics import Metrics
from tests.fakes.kubernetes import Kubernetes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (AgentOptions(""), "no --node-name"),
        (AgentOptions("n", controllers=("magic",)), "there is no controller 'magic'"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options: AgentOptions, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_options(options)


def test_the_command_without_a_cluster_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agent", "--node-name=n", "--net-config-path=x"]) == 2
    assert "no way into a Kubernetes cluster" in capsys.readouterr().err


async def test_the_agent_runs_without_any_controller_until_it_is_stopped() -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(
        agent(AgentOptions("n", (), bind="127.0.0.1:0"), kube=Kubernetes(), metrics=Metrics()).run(stop)
    )
    await asyncio.sleep(0)
    stop.set()
    assert await running is True

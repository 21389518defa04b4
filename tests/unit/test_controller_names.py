"""A node's moyai may be older or newer than the manifest: no name in its arguments is one that it does not know."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from moyai.agent import app as agent_app
from moyai.agent import manifests as agent
from moyai.agent.settings import CONTROLLERS, SETTLED_CONTROLLERS, AgentOptions
from moyai.ccm import app as ccm_app
from moyai.ccm import manifests as ccm
from moyai.ccm import settings as ccm_settings
from moyai.ccm.settings import CcmConfig
from moyai.cli.agent import agent as agent_command
from moyai.cli.ccm import ccm as ccm_command
from moyai.cloud.openstack.cloud_conf import GlobalConfig
from moyai.core.yamlread import read
from moyai.runtime.controller_names import LATER, controllers_argument, later_controllers, wanted_controllers


def container(manifests: str, kind: str) -> dict[str, Any]:
    (found,) = [one for one in read(manifests) if one and one["kind"] == kind]
    return found["spec"]["template"]["spec"]["containers"][0]


def variable(found: dict[str, Any]) -> str:
    return next((one["value"] for one in found.get("env", ()) if one["name"] == LATER), "")


def test_no_name_comes_to_the_arguments_that_agents_and_managers_of_old_images_read() -> None:
    """An agent that gets a name in its arguments that it does not know refuses to start, on every node of an older image."""
    assert SETTLED_CONTROLLERS == ("pod-network", "node-files", "policy", "cluster-policy", "announce", "bgp")
    assert ccm_settings.SETTLED_CONTROLLERS == ("node", "node-lifecycle", "fencing", "route", "service")
    made = container(
        agent.render(agent.AgentManifestOptions(image="i", api_server="a:1", controllers=CONTROLLERS)), "DaemonSet"
    )
    (argument,) = [one for one in made["args"] if one.startswith("--controllers=")]
    assert argument == f"--controllers={','.join(SETTLED_CONTROLLERS)}"
    assert variable(made).split(",") == [one for one in CONTROLLERS if one not in SETTLED_CONTROLLERS]
    options = ccm.ManifestOptions(
        "c", CcmConfig(GlobalConfig(auth_url="http://cloud/v3")), "i", "10.0.0.0/8", controllers=ccm_settings.CONTROLLERS
    )
    made = container(ccm.render(options), "Deployment")
    assert "--controllers=node,node-lifecycle,fencing,route,service" in made["args"]


def test_a_process_obeys_the_later_names_that_it_knows() -> None:
    known = ("a", "b", "c")
    for names in (("a", "b"), ("a", "c"), ("c",), ()):
        written = controllers_argument(names, settled=("a", "b")).partition("=")[2]
        later = "".join(one["value"] for one in later_controllers(names, settled=("a", "b")))
        assert wanted_controllers(written, later, known=known) == names
    assert wanted_controllers("a", "c, of-tomorrow", known=known) == ("a", "c")
    # what a user mistypes is refused, not passed over
    assert wanted_controllers("a,magic", "", known=known) == ("a", "magic")


def test_agents_and_managers_read_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    seen: list[Any] = []

    def start(options: Any, *_: Any) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(agent_app, "main", start)
    monkeypatch.setattr(ccm_app, "main", start)
    variables = {LATER: "egress,of-tomorrow", "NODE_NAME": "n"}
    done = CliRunner().invoke(agent_command, ["--controllers=policy"], env=variables)
    assert done.exit_code == 0, done.output
    assert isinstance(seen[0], AgentOptions)
    assert seen[0].controllers == ("policy", "egress")
    # of a moyai that named it in the arguments
    CliRunner().invoke(agent_command, ["--controllers=policy,egress"], env={"NODE_NAME": "n"})
    assert seen[1].controllers == ("policy", "egress")
    done = CliRunner().invoke(ccm_command, [f"--cloud-config={tmp_path}/c", "--controllers=node"], env=variables)
    assert done.exit_code == 0, done.output
    assert seen[2].controllers == ("node",)

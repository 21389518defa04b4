"""What a plan says for a cloud that offers less than OpenStack: a strategy for each decision, or a refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moyai.cloud.capabilities import ALTERNATIVES, Capability
from moyai.cloud.memory import MemoryCloud
from moyai.cloud.model import FloatingIP, Network
from moyai.core.errors import MoyaiError, Terminal, UsageError
from moyai.core.ids import cluster_tag
from moyai.core.paths import Paths
from moyai.lifecycle.up import preview
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster import plan_up
from moyai.plan.existing import find_existing
from moyai.plan.observed import Observed
from moyai.plan.teardown import Target, plan_down
from moyai.spec.load import parse
from tests.unit.lifecycle_world import node_cloud
from tests.unit.test_plan_cluster import EMPTY, NEW

#: What no strategy needs: what a cluster does without.
DISPENSABLE = {
    Capability.ROOT_VOLUMES,
    Capability.SPREAD,
    Capability.DISKS,
    Capability.EXISTING_NETWORKS,
    Capability.LOAD_BALANCERS,
    Capability.QUOTAS,
    Capability.SNAPSHOTS,
    Capability.TAGS,
}
#: A cloud of servers on private networks, with public addresses on the servers, disks and load balancers, and nothing else.
BARE = frozenset({Capability.DISKS, Capability.LOAD_BALANCERS})
REFUSALS = {
    Capability.POD_ROUTING: (
        UsageError,
        "spec.network.mode: 'routes', should be 'host-gw': cloud moyai has no pod routes in the router",
    ),
    Capability.ROUTERS: (
        Terminal,
        "cloud moyai has no routers: moyai connects machines by no other network than one behind a router: "
        "name a network of yours in spec.network.existing, or use a cloud with routers",
    ),
    Capability.FLOATING_IPS: (
        Terminal,
        "cloud moyai has no floating IPs: moyai leads to the Kubernetes API in no other way: set "
        "spec.network.disableExternalNetwork and name a network of yours in spec.network.existing, or use a cloud with "
        "floating IPs",
    ),
    Capability.CREDENTIALS: (
        Terminal,
        "cloud moyai has no credentials for programs: the parts inside the cluster could not log in without your own password: "
        "have the operator allow credentials for programs",
    ),
    Capability.METADATA: (
        Terminal,
        "cloud moyai has no metadata of servers: moyai hands control planes the key to their secrets in no other way: "
        "use a cloud that shows a server the metadata that it was made with",
    ),
}


def reduced(*, without: Capability | None = None, to: frozenset[Capability] = frozenset(Capability)) -> MemoryCloud:
    return node_cloud(capabilities=to - {without})


def test_every_capability_is_needed_by_a_strategy_or_dispensable() -> None:
    assert set(REFUSALS) | DISPENSABLE | ALTERNATIVES == set(Capability)
    assert not set(REFUSALS) & DISPENSABLE


@pytest.mark.parametrize("lacks", list(REFUSALS))
def test_where_no_strategy_fits_the_cloud_the_plan_names_what_is_missing(lacks: Capability, tmp_path: Path) -> None:
    kind, message = REFUSALS[lacks]
    cloud = reduced(without=lacks)
    with pytest.raises(MoyaiError) as caught:
        preview(parse(""), cloud, paths=Paths(tmp_path / "cache", tmp_path / "state"))
    assert (type(caught.value), str(caught.value)) == (kind, message)
    assert not any("create" in call for call in cloud.calls)


@pytest.mark.parametrize("lacks", sorted(DISPENSABLE))
def test_a_cluster_does_without_the_others(lacks: Capability, tmp_path: Path) -> None:
    assert preview(parse(""), reduced(without=lacks), paths=Paths(tmp_path / "cache", tmp_path / "state"))


def test_a_cloud_of_private_networks_and_addresses_on_machines_is_refused_one_strategy_after_the_other(tmp_path: Path) -> None:
    offered = BARE
    for lacks, (kind, message) in REFUSALS.items():
        with pytest.raises(kind) as caught:
            preview(parse(""), reduced(to=offered), paths=Paths(tmp_path / "cache", tmp_path / "state"))
        assert str(caught.value) == message
        # as if there were a strategy that needs less
        offered |= {lacks}
    assert preview(parse(""), reduced(to=offered), paths=Paths(tmp_path / "cache", tmp_path / "state"))


def test_a_cloud_without_external_networks_is_refused_for_its_routers_first() -> None:
    observed = replace(EMPTY, networks=(), capabilities=frozenset(Capability) - ALTERNATIVES - {Capability.ROUTERS})
    with pytest.raises(Terminal, match="has no routers"):
        plan_up(parse(""), observed, recorded=NEW)
    with pytest.raises(Terminal, match="has no external network"):
        plan_up(parse(""), replace(EMPTY, networks=()), recorded=NEW)


INTENDED = frozenset({keys.NETWORK, keys.FLOATING_IP})


def nameless(uid: str, *, tags: bool) -> Observed:
    """A network and a floating IP as a run that was interrupted may leave them, or as somebody else made them."""
    address = FloatingIP("f", "198.51.100.7", "ext", description=keys.api_address_description(uid))
    offered = frozenset(Capability) - (frozenset() if tags else {Capability.TAGS})
    return replace(
        EMPTY,
        networks=(*EMPTY.networks, Network("n", "quickstart-network")),
        floating_ips=(address,),
        capabilities=offered,
    )


@pytest.mark.parametrize("tags", [True, False])
def test_an_object_without_owner_is_ours_by_its_name_only_where_tags_come_after_the_object(tags: bool) -> None:
    recorded = replace(NEW, intended=INTENDED)
    observed = nameless(recorded.uid, tags=tags)
    found = find_existing("quickstart", observed, recorded=recorded)
    assert (found.network is not None, found.floating_ip is not None) == (tags, tags)
    assert {step.key for step in found.adopt} == (INTENDED if tags else set())
    gone = plan_down(observed, Target("quickstart", recorded.uid, INTENDED)).steps
    assert {step.object_id for step in gone if isinstance(step, s.Delete)} == ({"n", "f"} if tags else set())


def test_where_tags_come_with_the_object_creation_leaves_nothing_untagged() -> None:
    cloud = MemoryCloud(capabilities=frozenset(Capability) - {Capability.TAGS})
    changes = cloud.mortal.changes
    made = cloud.networks.create_network(name="n", tags=[cluster_tag("u")])
    assert cloud.mortal.changes == changes + 1
    assert [one.id for one in cloud.networks.networks(tag=cluster_tag("u"))] == [made.id]

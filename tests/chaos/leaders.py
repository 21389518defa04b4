"""The leading cloud controller manager and CSI controller killed while Services and claims come and go.

Nothing is doubled: each Service has one load balancer and one address of its own, each claim one volume. Nothing is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from tests.chaos.load import Load, kill_controllers, prepare
from tests.chaos.results import Result, Results, insist
from tests.chaos.site import Place, Shape, census, eventually

NAME = "leaders"
#: Seconds for all of them together; generous, for busy machines.
PATIENCE = 600.0


def run(results: Results, place: Place, *, folder: Path, count: int) -> None:
    """``count`` Services and as many claims, in a running cluster."""
    alone = census(place.cloud)
    load = Load(place, folder, name="many", services=count, claims=count)
    with results.case(NAME, f"{count} Services and {count} claims come") as result:
        prepare(place)
        with result.timed("all there"):
            load.make()
            _killed_midway(load, place, result=result)
            _all(load.addresses, load.services)
            _all(load.bound, load.claims)
        _once_each(load, census(place.cloud) - alone)
    with results.case(NAME, f"{count} Services and {count} claims go") as result, result.timed("all gone"):
        load.delete()
        _gone_midway(load, place, result=result)
        eventually(lambda: not load.left(), PATIENCE, late=lambda: ", ".join(load.left()))
        eventually(lambda: census(place.cloud) == alone, 120, late=lambda: f"{census(place.cloud) - alone} is left")


def _killed_midway(load: Load, place: Place, *, result: Result) -> None:
    """Kill the leaders while some are there and some are not."""
    eventually(lambda: load.addresses() and load.bound(), PATIENCE, late=lambda: "neither a Service nor a claim is done")
    result.facts.append(f"killed with {len(load.addresses())} Services and {len(load.bound())} claims there")
    kill_controllers(place)


def _gone_midway(load: Load, place: Place, *, result: Result) -> None:
    all_of_it = load.services + load.claims
    eventually(lambda: len(load.left()) < all_of_it, PATIENCE, late=lambda: "nothing goes")
    result.facts.append(f"killed with {len(load.left())} of {all_of_it} left")
    kill_controllers(place)


def _all(found: Callable[[], Collection[str]], count: int) -> None:
    eventually(lambda: len(found()) == count, PATIENCE, late=lambda: f"{len(found())} of {count} are there")


def _once_each(load: Load, made: Shape) -> None:
    """What the cloud has more than before is one of each for each Service and claim."""
    addresses, volumes = load.addresses(), load.bound()
    insist(len(set(addresses.values())) == load.services, f"two Services share an address: {addresses}")
    insist(len(set(volumes.values())) == load.claims, f"two claims share a volume: {volumes}")
    kinds = Counter(kind for name, count in made.items() for kind in [_kind(name)] * count)
    wanted = {"balancer": load.services, "floating ip": load.services, "volume": load.claims}
    found = {kind: kinds[kind] for kind in wanted}
    insist(found == wanted, f"the cloud has {found} more, {wanted} were asked for: {dict(made)}")
    insist(set(made.values()) == {1}, f"doubled: {[name for name, count in made.items() if count > 1]}")


def _kind(name: str) -> str:
    return "floating ip" if name.startswith("floating ip ") else name.partition(" ")[0]

"""``moyai cloud nifcloud``: what the local cloud's NIFCLOUD API has done, what it is at, and what shall go wrong in it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from ipaddress import IPv4Network
from typing import TYPE_CHECKING

import click

from moyai.cli.terminal import say
from moyai.core.clock import SystemClock
from moyai.core.errors import UsageError
from moyai.core.paths import default_paths
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig

if TYPE_CHECKING:
    from moyai.nifcloud_front.store.front_store import Transaction

_NAME = click.option("--name", default=LocalCloudConfig().name, show_default=True, help="The cloud's name.")


@click.group("nifcloud")
def nifcloud() -> None:
    """The local cloud's NIFCLOUD API: its ledger, its works, and faults on order."""


@contextmanager
def _store(name: str) -> Generator[Transaction]:
    from moyai.nifcloud_front.store.front_store import FrontStore

    file = CloudPaths(default_paths().cloud(LocalCloudConfig(name).name)).state / "nifcloud.db"
    if not file.exists():
        raise UsageError(f"cloud {name!r} does not speak NIFCLOUD", hint=f"moyai cloud up --name {name} --nifcloud")
    clock = SystemClock()
    store = FrontStore(file, lambda: clock.now().timestamp())
    try:
        with store.transaction() as transaction:
            yield transaction
    finally:
        store.close()


@nifcloud.command("ledger")
@_NAME
def ledger(name: str) -> None:
    """Print what was made and what has gone, the oldest first: time, verb, kind, id, name."""
    with _store(name) as store:
        for one in store.ledger():
            say(f"{_moment(one.at)} {one.verb:<5} {one.kind:<17} {one.uid:<14} {one.name}")


@nifcloud.command("works")
@_NAME
def works(name: str) -> None:
    """Print what is under way, with the cloud's last refusal of it."""
    with _store(name) as store:
        for one in store.works():
            refused = f" refused {one.refused} times: {one.why}" if one.refused else ""
            say(f"{one.kind} {one.uid} {one.verb}, at step {one.step or 'begin'} since {_moment(one.began)}{refused}")


@nifcloud.command("calls")
@_NAME
def calls(name: str) -> None:
    """Print the calls, the oldest first: operation, and the code of the error if there was one."""
    with _store(name) as store:
        for operation, code in store.calls():
            say(f"{operation} {code}".rstrip())


@nifcloud.command("order")
@_NAME
@click.argument("operation")
@click.option("--code", default="", help="Code of the error that the call is answered with.")
@click.option("--lost", is_flag=True, help="Close the connection instead of answering.")
@click.option("--delay", type=click.FloatRange(0), default=0.0, help="Seconds before the answer.")
@click.option("--nth", type=click.IntRange(1), default=1, show_default=True, help="The first call that it meets, from now.")
@click.option("--times", type=click.IntRange(1), default=1, show_default=True, help="How many calls it meets.")
@click.option("--after", is_flag=True, help="The call has its effect first.")
def order(name: str, operation: str, *, code: str, lost: bool, delay: float, nth: int, times: int, after: bool) -> None:
    """Let calls of OPERATION (* for any) go wrong."""
    from moyai.nifcloud_front.pace import FaultOrder

    if not (code or lost or delay):
        raise UsageError("the order changes nothing", hint="give --code, --lost or --delay")
    fault = FaultOrder(operation, code, nth, times, "after" if after else "before", delay, lost=lost)
    with _store(name) as store:
        store.order(fault.to_json())


@nifcloud.command("pace")
@_NAME
@click.option("--scale", type=click.FloatRange(0), default=0.05, show_default=True, help="Durations: 1 is the full one.")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="Calls a second of an access key; 0: any number.")
@click.option("--burst", type=click.IntRange(1), default=100, show_default=True, help="Calls at once, with --rate.")
def pace(name: str, *, scale: float, rate: float, burst: int) -> None:
    """Say how long changes take, and how many calls are taken."""
    from moyai.nifcloud_front.store.rows import PaceRow

    with _store(name) as store:
        store.put(PaceRow(scale=scale, rate=rate, burst=burst))


@nifcloud.command("bridge")
@_NAME
@click.argument("cidr")
def bridge(name: str, cidr: str) -> None:
    """Join all private LANs of CIDR that are made from now on, in whatever zones, into one network."""
    from moyai.nifcloud_front.store.rows import BridgeRow, LanRow

    try:
        network = str(IPv4Network(cidr))
    except ValueError as error:
        raise UsageError(f"range {cidr!r}: {error}", hint="an IPv4 network such as 10.20.0.0/24") from None
    with _store(name) as store:
        if any(one.cidr == network for one in store.all(LanRow)):
            raise UsageError(f"a private LAN of {network} exists", hint="make the bridge first")
        store.put(BridgeRow(network, network))


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

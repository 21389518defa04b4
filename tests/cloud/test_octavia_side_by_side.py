"""Load balancers of the local cloud side by side: HAProxy's start is held by the test, so nothing depends on how fast it is."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from moyai.core.paths import default_paths
from moyai.linux.process import run
from tests import sdk
from tests.cloud.lb_site import PORT, Site, first_answer, site

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="looks into the cloud's namespaces"),
    *sdk.REMOVALS,
]


@pytest.fixture(scope="module")
def place(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(cloud_name, tmp_path_factory.mktemp("lb")) as made:
        yield made


class Gate:
    """In front of the cloud's HAProxy: whoever starts it with ``word`` in its arguments waits while the gate is closed."""

    def __init__(self, folder: Path, word: str) -> None:
        self.folder = folder
        self._closed = folder / "closed"
        self._closed.touch()
        program = folder / "haproxy"
        lines = [
            "#!/bin/sh",
            f'case " $* " in *"{word}"*) : >{folder}/waits.$$; while test -e {folder}/closed; do sleep 0.05; done;; esac',
            f"rm -f {folder}/waits.$$",
            f'exec {folder}/real "$@"',
        ]
        program.write_text("\n".join(lines) + "\n")
        program.chmod(0o755)

    @property
    def waiting(self) -> int:
        return len(list(self.folder.glob("waits.*")))

    def open(self) -> None:
        self._closed.unlink(missing_ok=True)


@contextmanager
def gate(place: Site, word: str) -> Generator[Gate]:
    # in the cloud's own state, which its processes see where the host does
    folder = default_paths().state / "clouds" / place.cloud / "state" / "gate"
    folder.mkdir()
    try:
        shutil.copy2("/usr/sbin/haproxy", folder / "real")
        made = Gate(folder, word)
        run([*place.inside, "mount", "--bind", folder / "haproxy", "/usr/sbin/haproxy"])
        try:
            yield made
        finally:
            made.open()
            # lazily: a shell that waited a moment ago may still have the file open
            run([*place.inside, "umount", "--lazy", "/usr/sbin/haproxy"])
    finally:
        shutil.rmtree(folder)


def until(what: str, holds: Callable[[], object], *, within: float = 25.0) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.05)


def test_an_haproxy_that_is_slow_to_start_holds_nobody_else(place: Site) -> None:
    api = place.user.load_balancer
    slow = place.wait(place.create(place.tree()))
    pool = api.get_load_balancer(slow.id).pools[0]["id"]
    with gate(place, slow.id) as held:
        member = {"address": next(iter(place.members)), "protocol_port": PORT, "weight": 3}
        api.put(f"/lbaas/pools/{pool}/members", json={"members": [member]})
        until("the slow one waits", lambda: held.waiting)
        other = place.wait(place.create(place.tree()))
        # in good time: the daemon gives HAProxy 30 seconds
        assert api.get_load_balancer(slow.id).provisioning_status == "PENDING_UPDATE"
        assert held.waiting
        held.open()
        # the program behind the gate is needed until HAProxy runs
        place.wait(slow)
    assert first_answer(place.floating(other)) in place.members
    place.delete(other.id)
    place.delete(slow.id)


#: The last one must come to HAProxy's start before the daemon gives up the first one there, after 30 seconds.
SEVERAL = 3


def test_several_are_made_and_deleted_side_by_side(place: Site) -> None:
    with gate(place, " -D ") as held, ThreadPoolExecutor(SEVERAL) as threads:
        asked = [threads.submit(place.create, place.tree()) for _ in range(SEVERAL)]
        until("all of them are at HAProxy's start", lambda: held.waiting == SEVERAL)
        lbs = [one.result() for one in asked]
        held.open()
        for one in lbs:
            place.wait(one)
        ports = {one.vip_port_id for one in lbs}
        assert len(ports) == SEVERAL
        assert {one.provisioning_status for one in place.user.load_balancer.load_balancers(name=place.name)} == {"ACTIVE"}
        list(threads.map(place.delete, [one.id for one in lbs]))
    left = {one.id for one in place.admin.network.ports(network_id=place.network.id)}
    assert not ports & left
    namespaces = run([*place.inside, "ip", "netns", "list"]).stdout
    assert not [one.id for one in lbs if one.id in namespaces]

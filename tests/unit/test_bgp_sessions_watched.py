"""Which BGP sessions are up by FRR's log, and what is said of those that are not."""

from __future__ import annotations

from moyai.agent.bgp.session_watch import PATIENCE, SessionWatch, WantedSession
from moyai.linux.frr import Adjacency, adjacency
from tests.fakes.clock import FakeClock

UP = "2026/11/30 01:49:21 BGP: [N9HHH-F8H1M] %ADJCHANGE: neighbor 172.17.9.2(vm) in vrf default Up"
DOWN = "01:49:21 BGP: [PXVXG-TFNNT] %ADJCHANGE: neighbor 172.17.9.2(Unknown) in vrf default Down Hold Timer Expired"


class Watching:
    def __init__(self, *, node: bool = False, secured: bool = False) -> None:
        self.clock, self.drops = FakeClock(), 0
        self.watch = SessionWatch(self.clock, lambda: self.drops)
        self.watch.wanted({"172.17.9.2": WantedSession("router rt", node=node, secured=secured)})

    def said_after(self, seconds: float) -> list[str]:
        self.clock.sleep(seconds)
        return [message for _, message in self.watch.overdue()]


def test_lines_of_the_log_are_read() -> None:
    assert adjacency(UP) == Adjacency("172.17.9.2", True)
    assert adjacency(DOWN) == Adjacency("172.17.9.2", False, "Hold Timer Expired")
    assert adjacency("2026/11/30 01:49:21 BGP: something else") is None


def test_what_comes_and_goes_is_said_once() -> None:
    watching = Watching()
    assert watching.watch.heard(Adjacency("172.17.9.2", True)) == "BGP session with router rt (172.17.9.2) is up"
    assert watching.watch.heard(Adjacency("172.17.9.2", True)) == ""
    assert (watching.watch.up, watching.watch.down, watching.watch.downs) == (1, 0, 0)
    assert watching.watch.heard(Adjacency("172.17.9.2", False, "why")) == "BGP session with router rt (172.17.9.2) is down: why"
    assert (watching.watch.up, watching.watch.down, watching.watch.downs) == (0, 1, 1)
    assert watching.watch.heard(Adjacency("172.17.9.9", True)) == ""


def test_a_session_that_does_not_come_up_is_said_once_with_what_is_known() -> None:
    watching = Watching()
    assert watching.watch.waiting == PATIENCE
    assert watching.said_after(PATIENCE - 1) == []
    (said,) = watching.said_after(1)
    assert "wants a password" in said
    assert watching.said_after(100) == []
    assert watching.watch.waiting is None


def test_a_wrong_password_is_known_by_what_the_kernel_drops() -> None:
    watching = Watching(secured=True)
    watching.drops = 3
    assert "3 packets had a wrong password" in watching.said_after(PATIENCE)[0]
    silent = Watching(secured=True)
    assert "its address, port or password may be wrong" in silent.said_after(PATIENCE)[0]


def test_a_session_that_is_up_is_not_overdue_and_one_that_falls_has_time_again() -> None:
    watching = Watching()
    watching.watch.heard(Adjacency("172.17.9.2", True))
    assert watching.said_after(100) == []
    watching.watch.heard(Adjacency("172.17.9.2", False, "Hold Timer Expired"))
    assert watching.said_after(PATIENCE - 1) == []
    assert "Hold Timer Expired" in watching.said_after(1)[0]


def test_a_session_that_is_no_longer_wanted_is_forgotten_and_frrs_end_takes_all_down() -> None:
    watching = Watching(node=True)
    assert watching.watch.of_node("172.17.9.2")
    watching.watch.heard(Adjacency("172.17.9.2", True))
    watching.watch.all_down()
    assert (watching.watch.up, watching.watch.down) == (0, 1)
    watching.watch.wanted({})
    assert (watching.watch.up, watching.watch.down) == (0, 0)


def test_an_address_that_another_node_gets_is_named_by_that_node() -> None:
    watching = Watching(node=True)
    watching.watch.wanted({"172.17.9.2": WantedSession("node n9", node=True)})
    assert "node n9" in watching.watch.heard(Adjacency("172.17.9.2", True))

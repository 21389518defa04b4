"""What `moyai status` says of several control planes."""

from __future__ import annotations

import pytest

from moyai.lifecycle.plane_status import PlaneStatus, parse_members, plane_problems, read_planes

#: As etcdctl of etcd 3.7 prints them, cut to what is read.
LISTED = {
    "members": [
        {"ID": 2, "name": "c-0", "peerURLs": ["https://10.8.0.10:2380"], "clientURLs": ["https://10.8.0.10:2379"]},
        {"ID": 5, "name": "c-1", "peerURLs": ["https://10.8.0.11:2380"], "clientURLs": ["https://10.8.0.11:2379"]},
        {"ID": 8, "peerURLs": ["https://10.8.0.12:2380"], "isLearner": True},
    ]
}
STATUS = [{"Endpoint": "127.0.0.1:2379", "Status": {"header": {"member_id": 2}, "leader": 5}}]


def test_members_have_their_part() -> None:
    assert parse_members(LISTED, STATUS) == {"c-0": "voter", "c-1": "leader", "": "learner"}


def planes(*members: str) -> tuple[PlaneStatus, ...]:
    return tuple(PlaneStatus(f"c-{number}", member, number == 0) for number, member in enumerate(members))


@pytest.mark.parametrize(
    ("members", "ready", "problems"),
    [
        (("leader", "voter", "voter"), 3, []),
        (("unknown", "unknown", "unknown"), 3, []),
        (("leader",), 1, []),
        (("leader", "voter", "voter"), 2, ["etcd has no member to spare: if one more dies, the API stops"]),
        (
            ("leader", "voter", "learner"),
            3,
            [
                "control plane c-2 has not got all of etcd's data yet",
                "etcd has no member to spare: if one more dies, the API stops",
            ],
        ),
        (
            ("leader", "voter", "absent"),
            3,
            [
                "control plane c-2 is no member of etcd",
                "etcd has no member to spare: if one more dies, the API stops",
            ],
        ),
    ],
)
def test_what_is_wrong_with_members_is_said(members: tuple[str, ...], ready: int, problems: list[str]) -> None:
    assert list(plane_problems(planes(*members), ready=[f"c-{number}" for number in range(ready)])) == problems


def test_where_nothing_answers_all_is_unknown() -> None:
    assert read_planes(None, ["c-1", "c-0"], ready=[]) == (
        PlaneStatus("c-0", "unknown", holder=False),
        PlaneStatus("c-1", "unknown", holder=False),
    )
    assert read_planes(None, [], ready=[]) == ()

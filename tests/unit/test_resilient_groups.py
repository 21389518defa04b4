"""Resilient groups of a router: a prefix keeps its group, a next hop its number, and nothing is left."""

from __future__ import annotations

from moyai.plan.bgp.resilient_groups import (
    FIRST_GROUP,
    FIRST_HOP,
    DropNextHop,
    DropRoute,
    GroupState,
    GroupStep,
    NextHop,
    PutGroup,
    PutHop,
    PutRoute,
    group_steps,
)

A, B, C = (NextHop(f"10.8.0.1{n}", 2) for n in (1, 2, 3))
WEB, MAIL = "10.8.0.200/32", "10.8.0.201/32"


def after(steps: tuple[GroupStep, ...], have: GroupState) -> GroupState:
    """As a kernel that refuses what names something that is not there, or takes away what is named."""
    hops, groups, routes = dict(have.hops), dict(have.groups), dict(have.routes)
    for step in steps:
        match step:
            case PutHop():
                hops[step.number] = step.hop
            case PutGroup():
                assert step.hops
                assert step.hops <= hops.keys()
                groups[step.number] = step.hops
            case PutRoute():
                assert step.group in groups
                routes[step.prefix] = step.group
            case DropRoute():
                del routes[step.prefix]
            case DropNextHop():
                assert step.number not in routes.values()
                assert all(step.number not in members for members in groups.values())
                hops.pop(step.number, None)
                groups.pop(step.number, None)
    return GroupState(hops, groups, routes)


def test_a_prefix_gets_a_group_and_keeps_it_while_its_next_hops_come_and_go() -> None:
    first = group_steps({WEB: frozenset({A, B, C})}, GroupState())
    assert first == (
        PutHop(FIRST_HOP, A),
        PutHop(FIRST_HOP + 1, B),
        PutHop(FIRST_HOP + 2, C),
        PutGroup(FIRST_GROUP, frozenset({FIRST_HOP, FIRST_HOP + 1, FIRST_HOP + 2})),
        PutRoute(WEB, FIRST_GROUP),
    )
    have = after(first, GroupState())
    died = group_steps({WEB: frozenset({A, C})}, have)
    assert died == (PutGroup(FIRST_GROUP, frozenset({FIRST_HOP, FIRST_HOP + 2})), DropNextHop(FIRST_HOP + 1))
    have = after(died, have)
    back = group_steps({WEB: frozenset({A, B, C})}, have)
    assert [type(one) for one in back] == [PutHop, PutGroup]
    assert group_steps({WEB: frozenset({A, B, C})}, after(back, have)) == ()


def test_each_prefix_has_its_own_group_and_what_is_gone_leaves_nothing() -> None:
    wanted = {WEB: frozenset({A, B}), MAIL: frozenset({A, B})}
    have = after(group_steps(wanted, GroupState()), GroupState())
    assert len(set(have.routes.values())) == 2
    assert len(have.hops) == 2
    have = after(group_steps({MAIL: frozenset({C})}, have), have)
    assert (list(have.routes), [*have.hops.values()]) == ([MAIL], [C])
    assert after(group_steps({}, have), have) == GroupState()


def test_from_whatever_a_kernel_has_left_the_next_steps_lead_to_what_is_wanted() -> None:
    wanted = {WEB: frozenset({A, B}), MAIL: frozenset({B, C})}
    whole = after(group_steps(wanted, GroupState()), GroupState())
    leftovers = [
        GroupState(),
        # a device that went took its next hops, groups and routes along
        GroupState(hops={FIRST_HOP: A}),
        GroupState(whole.hops, whole.groups),
        GroupState(whole.hops, {}, {}),
        GroupState(
            {**whole.hops, FIRST_HOP + 9: NextHop("10.9.9.9", 7)}, {**whole.groups, FIRST_GROUP + 5: frozenset({FIRST_HOP})}
        ),
        # a route to a group that is none of ours
        GroupState(whole.hops, {}, {WEB: 0}),
    ]
    for have in leftovers:
        found = after(group_steps(wanted, have), have)
        assert group_steps(wanted, found) == ()
        assert {prefix: {found.hops[n] for n in found.groups[group]} for prefix, group in found.routes.items()} == wanted
    # killed after any step
    steps = group_steps(wanted, GroupState())
    for most in range(len(steps)):
        have = after(steps[:most], GroupState())
        assert group_steps(wanted, after(group_steps(wanted, have), have)) == ()

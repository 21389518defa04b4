# pyright: basic, reportMissingImports=false
"""What Octavia's API asks of other services for each call, asked once for the whole process where the answer is the same.

Octavia's API makes its Neutron driver, a Keystone session and a client of the user's again in every call, several times. Each
of them logs in, or asks for versions and extensions. None of it depends on the call; the user's client depends on the token.
"""

from __future__ import annotations

import functools

from octavia.common import clients, utils
from octavia.network.drivers.neutron import base as neutron_base

#: Users' clients that are kept: one for each token, the latest ones.
_CLIENTS = 64


class _Token:
    """A request's context reduced to its token, which alone decides what a client may do; two of one token are one key."""

    def __init__(self, auth_token: str) -> None:
        self.auth_token = auth_token

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Token) and other.auth_token == self.auth_token

    def __hash__(self) -> int:
        return hash(self.auth_token)


def save() -> None:
    """Let this process's API calls do so."""
    utils.get_network_driver = functools.cache(utils.get_network_driver)
    make = clients.NeutronAuth.get_user_neutron_client
    kept = functools.lru_cache(_CLIENTS)(make)
    clients.NeutronAuth.get_user_neutron_client = lambda context: kept(_Token(context.auth_token))
    _extensions()
    _subnets()


def _extensions() -> None:
    # they change with Neutron's configuration only
    ask = neutron_base.BaseNeutronDriver._check_extension_enabled
    known: dict[str, bool] = {}

    def answer(self, extension_alias):
        if extension_alias not in known:
            known[extension_alias] = ask(self, extension_alias)
        return known[extension_alias]

    neutron_base.BaseNeutronDriver._check_extension_enabled = answer


def _subnets() -> None:
    # one subnet is in one network, and no other is the same: only several are to be compared
    from octavia.api.v2.controllers.load_balancer import LoadBalancersController

    compare = LoadBalancersController._validate_subnets_share_network_but_no_duplicates

    def unless_one(load_balancer):
        if load_balancer.additional_vips:
            compare(load_balancer)

    LoadBalancersController._validate_subnets_share_network_but_no_duplicates = staticmethod(unless_one)

"""What is read of the cloud before a plan: which refusals stand for an empty answer, and what is not asked for."""

from __future__ import annotations

import pytest

from moyai.cloud.capabilities import Capability
from moyai.cloud.memory import MemoryCloud
from moyai.core.errors import CredentialsRefused, MoyaiError, NotFound, PermissionRefused, Terminal
from moyai.lifecycle import observe

UID = "11112222-3333-4444-5555-666677778888"


@pytest.mark.parametrize("refusal", [PermissionRefused("not for members"), NotFound("no such call")])
def test_an_account_that_may_not_list_providers_has_none_to_choose_from(refusal: MoyaiError) -> None:
    cloud = MemoryCloud()
    assert observe.take(cloud, name="demo", uid=UID, ask_providers=True).balancer_providers
    cloud.faults.fail_next("load_balancers.providers", refusal)
    assert observe.take(cloud, name="demo", uid=UID, ask_providers=True).balancer_providers == ()


@pytest.mark.parametrize("error", [CredentialsRefused("who are you"), Terminal("a certificate is not trusted")])
def test_any_other_failure_to_list_providers_is_not_taken_for_their_absence(error: MoyaiError) -> None:
    cloud = MemoryCloud()
    cloud.faults.fail_next("load_balancers.providers", error)
    with pytest.raises(type(error)):
        observe.take(cloud, name="demo", uid=UID, ask_providers=True)


def test_a_cloud_without_load_balancers_is_not_asked_for_their_providers() -> None:
    cloud = MemoryCloud(capabilities=frozenset(Capability) - {Capability.LOAD_BALANCERS})
    assert observe.take(cloud, name="demo", uid=UID, ask_providers=True).balancer_providers == ()

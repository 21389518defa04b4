"""What openstacksdk and the libraries below it announce for their next versions: no fault of ours, the same for all tests."""

from __future__ import annotations

import pytest

#: For tests that use openstacksdk's load balancers and networks.
REMOVALS = (
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK50Warning"),
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK60Warning"),
)
#: For tests that use its servers.
DEPRECATIONS = (
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
)

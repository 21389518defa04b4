"""The contract that every adapter of ``cloud.capabilities.Cloud`` fulfils: written once, run on each adapter.

``suite`` holds the tests as classes. A runner provides a ``site`` (``site.Site``) and derives its classes from the suite's:
``tests/unit/test_contract_memory.py`` for the cloud in memory, ``tests/cloud/test_adapter.py`` for OpenStack.
"""

import pytest

# pytest shows the values of a failed assert only for modules that it rewrites
pytest.register_assert_rewrite("tests.contract.site", "tests.contract.suite")

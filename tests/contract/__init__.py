"""What every adapter of ``cloud.capabilities.Cloud`` must do, told once and run on each of them.

``suite`` holds the tests as classes; a runner gives a ``site`` (``site.Site``) and inherits them:
``tests/unit/test_contract_memory.py`` for the cloud in memory, ``tests/cloud/test_adapter.py`` for OpenStack.
"""

import pytest

# their asserts are to be told as those of test modules are
pytest.register_assert_rewrite("tests.contract.site", "tests.contract.suite")

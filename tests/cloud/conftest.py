"""Tests against a running cloud: ``MOYAI_TEST_CLOUD`` names it (an entry of clouds.yaml), by default the local one."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def cloud_name() -> str:
    return os.environ.get("MOYAI_TEST_CLOUD", "moyai")

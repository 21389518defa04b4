"""A runner of the bare suite for a NIFCLOUD that answers at an address: the local cloud's front, or the real one.

``NIFCLOUD_ACCESS_KEY_ID`` and ``NIFCLOUD_SECRET_ACCESS_KEY`` have the key. A test module derives the classes of
``bare_suite`` and makes its fixture ``bare`` with ``building_bare(nifcloud_runner(name))``.
"""

from __future__ import annotations

from moyai.cloud.factory import ADAPTERS
from moyai.core.clock import SystemClock
from tests.contract.bare_site import BareRunner
from tests.contract.machine_keys import rsa_line


def nifcloud_runner(name: str, *, flavor_id: str = "e-mini", seconds: float = 900) -> BareRunner:
    """``name``: as users name it, such as ``nifcloud:region=jp-east-1,endpointURL=https://127.0.0.1:8443,ca=/x/ca.pem``."""
    cloud = ADAPTERS.connect(name)
    return BareRunner(
        cloud,
        SystemClock(),
        image_id=next(one.id for one in cloud.images.images() if one.ready),
        flavor_id=flavor_id,
        user_data="#!/bin/sh\ntrue\n",
        public_key=rsa_line(),
        step_gb=100,
        seconds=seconds,
    )

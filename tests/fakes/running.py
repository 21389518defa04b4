"""Controllers that run during a block of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from moyai.runtime.controllers import ControllerSet


@asynccontextmanager
async def running(parts: ControllerSet) -> AsyncGenerator[None]:
    """Run the controllers during the block. The test fails if one of them ends by itself."""
    stop = asyncio.Event()
    task = asyncio.create_task(parts.run(stop))
    try:
        yield
    finally:
        stop.set()
        assert await task, "a controller ended by itself"

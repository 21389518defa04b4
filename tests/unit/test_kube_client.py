"""The connection to the Kubernetes API: what a caller that goes away leaves behind."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from moyai.kube.resources import NODES
from moyai.kube.watching import KubeClient


async def test_a_call_cancelled_in_its_tls_handshake_leaves_no_socket() -> None:
    greeted, ended = asyncio.Event(), asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            greeted.set()
        ended.set()
        writer.close()

    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        client = KubeClient(httpx2.AsyncClient(base_url=f"https://127.0.0.1:{port}", timeout=0.3, trust_env=False))
        call = asyncio.create_task(client.list(NODES))
        await greeted.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await client.close()
        # seen from the other end: a socket that is only forgotten would stay open
        async with asyncio.timeout(1):
            await ended.wait()

"""The connection to the Kubernetes API: what a caller that goes away leaves behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest

from moyai.core.errors import UsageError
from moyai.kube.resources import NODES
from moyai.kube.watching import KubeClient


async def test_a_call_cancelled_in_its_tls_handshake_leaves_no_socket() -> None:
    greeted, refused, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def refuse_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        greeted.set()
        await refused.wait()
        writer.write(b"this is no TLS")
        while await reader.read(4096):
            pass
        ended.set()
        writer.close()

    server = await asyncio.start_server(refuse_late, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        client = KubeClient(httpx2.AsyncClient(base_url=f"https://127.0.0.1:{port}", timeout=60, trust_env=False))
        call = asyncio.create_task(client.list(NODES))
        await greeted.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        # the handshake fails by itself after the call was cancelled
        refused.set()
        await client.close()
        # seen from the other end: a socket that is only forgotten would stay open
        async with asyncio.timeout(60):
            await ended.wait()


async def test_selectors_are_the_apis() -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.query.decode())
        return httpx2.Response(200, json={"items": [], "metadata": {"resourceVersion": "7"}})

    client = KubeClient(httpx2.AsyncClient(base_url="https://api.test", transport=httpx2.MockTransport(answer)))
    assert await client.list(NODES, fields="a=b", labels="c/d=e") == ([], "7")
    assert "fieldSelector=a%3Db" in asked[0]
    assert "labelSelector=c%2Fd%3De" in asked[0]
    await client.list(NODES)
    assert "elector" not in asked[1]
    await client.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "{",
        "contexts: 5",
        "clusters: 5",
        "{clusters: [a], contexts: [], users: []}",
        "{clusters: [{name: a}], contexts: []}",
        "{clusters: [{name: a, cluster: 5}], contexts: [{name: a, context: {cluster: a, user: a}}], current-context: a}",
        "!!bool zz",
        "[" * 3000,
    ],
)
def test_an_odd_kubeconfig_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        KubeClient.connect(file)
    assert str(caught.value).isprintable()

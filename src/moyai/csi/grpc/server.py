"""gRPC: a server on a unix socket that serves objects whose methods are called as those of a CSI service.

The only module that touches grpcio. A method takes the request's message and returns the answer's; its exceptions become a
status (``errors.refusal``). Every call is counted, timed and logged by method, volume and outcome; requests themselves are
never logged, since they may hold secrets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor

from moyai.csi.errors import Refused, refusal
from moyai.runtime.metrics import Metrics

_log = logging.getLogger(__name__)

#: More than enough for a list of thousands of volumes.
_MOST_BYTES = 64 << 20
_QUIET = frozenset({"Probe", "NodeGetCapabilities", "ControllerGetCapabilities", "NodeGetVolumeStats", "GetPluginInfo"})

Method = Callable[[Any], Awaitable[Any]]


class RpcServer:
    """``services``: a service's descriptor (``pb2.DESCRIPTOR.services_by_name``) and the object that serves it."""

    def __init__(self, services: Mapping[str, tuple[ServiceDescriptor, object]], *, metrics: Metrics) -> None:
        self._metrics = metrics
        self._running = 0
        options = [("grpc.max_receive_message_length", _MOST_BYTES), ("grpc.max_send_message_length", _MOST_BYTES)]
        self._server = grpc.aio.server(options=options)
        handlers = [self._service(descriptor, served) for descriptor, served in services.values()]
        self._server.add_generic_rpc_handlers(tuple(handlers))
        metrics.describe("moyai_csi_calls_total", "CSI calls by method and gRPC code")
        metrics.describe("moyai_csi_call_seconds", "How long a CSI call takes, waiting for the cloud included")
        metrics.gauge("moyai_csi_calls_running", lambda: {(): float(self._running)})

    async def start(self, endpoint: str) -> Path:
        """Serve on ``unix:///path``; a socket that an earlier run left is replaced. Returns the path."""
        path = socket_path(endpoint)
        await asyncio.to_thread(_clear, path)
        if not self._server.add_insecure_port(f"unix:{path}"):
            raise OSError(f"cannot listen on {path}")
        await self._server.start()
        # a process that reaches the socket may ask for any disk of the node
        await asyncio.to_thread(path.chmod, 0o600)
        return path

    async def stop(self, grace: float) -> None:
        """No new calls; those that run have ``grace`` seconds."""
        await self._server.stop(grace)

    async def run(self) -> None:
        """Until the server ends."""
        # grpcio has one future for all callers that wait: if this task cancelled it, `stop` would fail
        await asyncio.shield(asyncio.ensure_future(self._server.wait_for_termination()))

    def _service(self, descriptor: ServiceDescriptor, served: object) -> grpc.GenericRpcHandler:
        handlers: dict[str, Any] = {}
        for method in descriptor.methods:
            function = cast("Method | None", getattr(served, method.name, None))
            if function is None:
                continue  # grpc answers UNIMPLEMENTED
            request = message_factory.GetMessageClass(method.input_type)
            answer = message_factory.GetMessageClass(method.output_type)
            handlers[method.name] = grpc.unary_unary_rpc_method_handler(
                self._handler(method.name, function),
                request_deserializer=request.FromString,
                response_serializer=answer.SerializeToString,
            )
        return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)

    def _handler(self, name: str, function: Method) -> Callable[[Any, Any], Awaitable[Any]]:
        async def handle(request: Any, context: Any) -> Any:
            loop = asyncio.get_running_loop()
            start = loop.time()
            code, words = "OK", ""
            self._running += 1
            try:
                return await function(request)
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:
                refused = refusal(error)
                code, words = refused.code, refused.message
                if not isinstance(error, Refused) and code == "INTERNAL":
                    _log.warning("%s", name, exc_info=error)
                await context.abort(getattr(grpc.StatusCode, code), words)
            finally:
                self._running -= 1
                seconds = loop.time() - start
                self._metrics.count("moyai_csi_calls_total", method=name, code=code)
                self._metrics.observe("moyai_csi_call_seconds", seconds, method=name)
                level = logging.DEBUG if name in _QUIET and code == "OK" else logging.INFO
                about = getattr(request, "volume_id", "") or getattr(request, "name", "") or getattr(request, "snapshot_id", "")
                _log.log(level, "%s %s: %s in %.2f s%s", name, about, code, seconds, f": {words}" if words else "")

        return handle


async def probe(path: Path, *, seconds: float = 5.0) -> str:
    """Ask the server on a socket whether it is ready. Returns the reason why not, empty when it is."""
    from moyai.csi.proto import csi_pb2 as pb

    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        ask = channel.unary_unary(
            "/csi.v1.Identity/Probe",
            request_serializer=pb.ProbeRequest.SerializeToString,
            response_deserializer=pb.ProbeResponse.FromString,
        )
        try:
            answer = await ask(pb.ProbeRequest(), timeout=seconds)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        return "" if answer.ready.value or not answer.HasField("ready") else "not ready"


def socket_path(endpoint: str) -> Path:
    """The path of ``unix:///path``, ``unix:path`` or a plain absolute path. ValueError for anything else."""
    path = endpoint.removeprefix("unix:")
    if path.startswith("//"):
        path = path[2:]
    if not path.startswith("/"):
        raise ValueError(f"{endpoint!r} is no unix socket: write unix:///csi/csi.sock")
    return Path(path)


def _clear(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(f"{path} exists and is no socket")
        path.unlink()

"""The CSI driver as a process: the controller service on the control plane, the node service on every node, or both in one.

The socket is served first and the cloud or the machine's identity found beside it; until then ``Probe`` says not ready, so that
the side-cars wait instead of failing. A part that ends takes the process with it (``runtime.manager``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor import ServiceDescriptor

from moyai.cloud.adapter import Adapter
from moyai.cloud.capabilities import Cloud
from moyai.cloud.config_file import LOGIN_SECTION, read_text
from moyai.cloud.model import Instance
from moyai.cloud.own_machine import Guest
from moyai.core.backoff import Backoff
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import MoyaiError, UsageError
from moyai.csi.controller.cloud_view import CloudView
from moyai.csi.controller.rpc import ControllerService
from moyai.csi.controller.snapshots import SnapshotWork
from moyai.csi.controller.volumes import VolumeWork
from moyai.csi.grpc.server import RpcServer, socket_path
from moyai.csi.identity import IdentityService
from moyai.csi.node.disk_places import DiskPlaces
from moyai.csi.node.disks import BusDevices, NodeDisks, linux_disks
from moyai.csi.node.registration import Registration
from moyai.csi.node.rpc import NodeService
from moyai.csi.node.staging import NodeWork
from moyai.csi.proto import csi_pb2 as pb
from moyai.csi.settings import CsiConfig, read_csi_config
from moyai.runtime.controllers import ControllerSet, Probes
from moyai.runtime.logs import set_up
from moyai.runtime.metrics import Metrics

_log = logging.getLogger(__name__)

#: Blocking calls to the cloud or to the machine at the same time; each waits nearly always.
_THREADS = 32
#: Seconds that a running call has left when the process is to end. The next try finds whatever the call began.
_GRACE = 5.0
_AGAIN = Backoff(base=0.5, ceiling=15.0)
#: Between two looks for mounts of disks that are gone. A look reads one table of the kernel.
_STALE_MOUNTS_SECONDS = 10.0


@dataclass(frozen=True)
class CsiOptions:
    """``cloud_config`` may be missing where only the node service runs: it asks the cloud for nothing.

    ``http_endpoint``: ``host:port`` of probes and metrics, empty: none. ``kubelet_path``: the endpoint as the kubelet sees it;
    with it and ``registration_dir`` the node service registers itself.
    """

    endpoint: str
    cluster: str
    cloud_config: Path | None = None
    controller: bool = True
    node: bool = True
    http_endpoint: str = ""
    kubelet_path: str = ""
    registration_dir: Path | None = None
    volume_limit: int = 0
    log_level: str = "info"


def main(options: CsiOptions, adapter: Adapter) -> int:
    """Runs until a signal (0) or until a part of it ends (1). Raises UsageError for what it cannot start with."""
    config = _read(options, adapter)
    set_up(options.log_level, config.cloud.secrets)
    return asyncio.run(_main(options, config, adapter=adapter))


def _read(options: CsiOptions, adapter: Adapter) -> CsiConfig:
    if not (options.controller or options.node):
        raise UsageError("neither the controller nor the node service is to be provided", hint="leave one of them on")
    try:
        socket_path(options.endpoint)
    except ValueError as error:
        raise UsageError(f"--endpoint: {error}") from None
    config = read_csi_config(read_text(options.cloud_config) if options.cloud_config else "", adapter)
    if options.controller:
        if key := config.cloud.missing:
            raise UsageError(f"the controller service needs a cloud config with {key} in section [{LOGIN_SECTION}]")
        if not config.moyai.cluster_uid:
            raise UsageError(
                "cloud config has no cluster-uid",
                hint="set it in section [Moyai]: any word that no other cluster of the project has",
            )
    return config


async def _main(options: CsiOptions, config: CsiConfig, *, adapter: Adapter) -> int:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="csi"))
    cloud: Cloud | None = None
    if options.controller:
        cloud = await asyncio.to_thread(adapter.log_in, config.cloud)
    return 0 if await Driver(options, config, adapter=adapter, cloud=cloud).run() else 1


class Driver:
    """All services of one process. ``run`` works until stopped; tests bring their own cloud, disks and guest."""

    def __init__(
        self,
        options: CsiOptions,
        config: CsiConfig,
        *,
        adapter: Adapter,
        cloud: Cloud | None,
        disks: NodeDisks | None = None,
        guest: Guest | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._options = options
        self._names = names = adapter.volume_names
        self._guest = guest or adapter.guest()
        self._instance: Instance | None = None
        self._missing: dict[str, str] = {}
        self.metrics = Metrics()
        limit, rules = options.volume_limit or config.storage.node_volume_attach_limit, adapter.volume_rules
        limit = min(limit, rules.per_machine or limit)
        services: dict[str, tuple[ServiceDescriptor, object]] = {}
        self._tasks: dict[str, Callable[[], Awaitable[None]]] = {}

        def service(name: str, served: object) -> None:
            services[name] = (pb.DESCRIPTOR.services_by_name[name], served)

        service("Identity", IdentityService(names, not_ready=self._not_ready))
        if cloud:
            self._cloud = CloudView(
                cloud,
                metrics=self.metrics,
                clock=clock or SystemClock(),
                cluster=options.cluster,
                uid=config.moyai.cluster_uid,
                names=names,
                ignore_zones=config.storage.ignore_volume_az,
            )
            work = VolumeWork(self._cloud, limit=limit, step_gb=rules.step_gb)
            service(
                "Controller",
                ControllerService(
                    self._cloud,
                    work,
                    snapshots=SnapshotWork(self._cloud),
                    links=self._guest.disk_links,
                    type_of=adapter.volume_type,
                    has_snapshots=rules.snapshots,
                ),
            )
            self._missing["cloud"] = "the cloud has not answered yet"
            self._tasks["cloud"] = self._warm_up
            self.metrics.gauge("moyai_csi_volumes_waited_for", lambda: {(): float(len(self._cloud.volume_poller))})
        self._registration: Registration | None = None
        if options.node:
            links, rescan = self._guest.disk_links, config.storage.rescan_on_resize
            own = disks or linux_disks(BusDevices() if rules.on_bus else None)
            places = socket_path(options.endpoint).parent / "places" if rules.on_bus else None
            staging = NodeWork(own, names=names, links=DiskPlaces(links, places), rescan=rescan or rules.on_bus)
            self._node = NodeService(staging, names=names, instance=lambda: self._instance, limit=limit)
            service("Node", self._node)
            self._missing["instance"] = "this machine does not know its id in the cloud yet"
            self._tasks["identity"] = self._identify
            self._tasks["stale mounts"] = lambda: self._node.keep_clear(_STALE_MOUNTS_SECONDS)
        self._server = RpcServer(services, metrics=self.metrics)

    async def run(self, stop: asyncio.Event | None = None) -> bool:
        """True after ``stop`` or a signal, False when a part ended by itself."""
        options = self._options
        try:
            path = await self._server.start(options.endpoint)
        except (OSError, RuntimeError) as error:
            raise UsageError(f"cannot serve on {options.endpoint} ({error})") from error
        _log.info("serving %s on %s", ", ".join(self._parts()), path)
        parts = ControllerSet(metrics=self.metrics, tasks={"gRPC": self._server.run, **self._tasks}, probes=self._probes(path))
        try:
            return await parts.run(stop)
        finally:
            await self._server.stop(_GRACE)

    def _probes(self, path: Path) -> Probes | None:
        if not self._options.http_endpoint:
            return None
        return Probes(
            self._options.http_endpoint,
            live={"socket": lambda: "" if path.exists() else f"{path} is gone"},
            ready={"ready": self._not_ready, "registration": self._not_registered},
        )

    def _parts(self) -> list[str]:
        return [name for name, on in (("controller", self._options.controller), ("node", self._options.node)) if on]

    def _not_ready(self) -> str:
        return "; ".join(self._missing.values())

    def _not_registered(self) -> str:
        return self._registration.wrong() if self._registration else ""

    async def _warm_up(self) -> None:
        """Log in and learn the zones before the first request needs them; then nothing more."""
        attempt = 0
        while True:
            try:
                known = await self._cloud.zone_map()
                break
            except MoyaiError as error:
                self._missing["cloud"] = f"the cloud does not answer: {error}"
                _log.warning("%s", self._missing["cloud"])
            await asyncio.sleep(_AGAIN.delay(attempt))
            attempt += 1
        del self._missing["cloud"]
        _log.info("zones of machines and of volumes: %s", ", ".join(f"{one}→{other}" for one, other in sorted(known.edges)))
        await asyncio.Event().wait()

    async def _identify(self) -> None:
        """Find out which machine this is, and only then register with the kubelet, which asks at once."""
        attempt = 0
        while (found := await asyncio.to_thread(self._guest.instance)) is None:
            if attempt == 0:
                _log.warning("this machine does not know yet which one of the cloud it is; asking again")
            await asyncio.sleep(_AGAIN.delay(attempt))
            attempt += 1
        self._instance = found
        del self._missing["instance"]
        _log.info("this is machine %s in zone %s", found.id, found.zone or "(none)")
        # before the kubelet's first call: a mount that an earlier driver left can keep the cloud from attaching its disk again
        await self._node.clear_stale()
        options = self._options
        if options.kubelet_path and options.registration_dir:
            driver = self._names.driver
            socket = options.registration_dir / f"{driver}-reg.sock"
            # its calls are not CSI calls: they are not counted with them
            self._registration = Registration(
                driver=driver,
                socket=socket,
                endpoint=options.kubelet_path,
                metrics=Metrics(),
                refused=self._node.refused_by_kubelet,
            )
            await self._registration.run()
        await asyncio.Event().wait()

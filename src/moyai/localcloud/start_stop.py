"""The local cloud as a whole: ``up``, ``down``, ``status``, ``logs``, ``restart``, ``leftovers``.

``up`` is idempotent and continues from the state that it finds:

- It completes a running cloud.
- It restarts a stopped cloud (for example after a reboot) with the cloud's own state.
- It restores an absent cloud from a snapshot, or creates it from nothing.
- It recreates a cloud that an interrupted ``up`` left. Such a cloud lacks the marker file ``complete``.

Each cloud name has one lock. Commands that change a cloud wait for each other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import moyai
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import MoyaiError, NoSpace, UsageError
from moyai.core.files import write_private
from moyai.core.graph import run_graph
from moyai.core.locks import file_lock
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.linux import cgroups, proc
from moyai.linux.process import ProcessError, run
from moyai.localcloud import agents, clouds_yaml, database, database_image, ends, env, host, nifcloud_access, secrets, tuning
from moyai.localcloud.api import Api
from moyai.localcloud.control import Control
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig
from moyai.localcloud.services import files, services
from moyai.localcloud.services.rendering import NifcloudAccess, ServiceContext
from moyai.localcloud.setup import STARTS, Setup
from moyai.localcloud.supervision import SupervisorPlan

#: What a cloud needs before the first machine; machines come on top.
MEMORY_MB = 4500
DISK_GB = 4
_SUBFOLDERS = (
    "run",
    "run/lock",
    "run/rabbit",
    "run/tmp",
    "log",
    "conf",
    "conf/keystone",
    "conf/placement",
    "state",
    "state/glance",
    "machines",
)


def up(
    config: LocalCloudConfig,
    paths: Paths,
    *,
    reporter: Reporter,
    registry: Path | None = None,
    clock: Clock | None = None,
    use_snapshot: bool = True,
    clouds_file: Path | None = None,
    nifcloud: bool = False,
) -> None:
    """Bring the cloud up, whatever state it is in; returns when every service answers and every agent is alive.

    ``registry``: the registry's program. ``nifcloud``: let it speak NIFCLOUD too; a cloud that does goes on to.

    Raises UsageError for what the user can change, MoyaiError for what went wrong.
    """
    require_root()
    clock = clock or SystemClock()
    folders = CloudPaths(paths.cloud(config.name))
    folders.check()
    with locked(config.name, reporter):
        ends.refuse_foreign(config, folders)
        _check_same(config, folders)
        paths.make_state("clouds")
        running = _init(folders)
        if running is None:
            host.check_ranges(config)
            host.check_capacity(MEMORY_MB, DISK_GB, folder=folders.root)
        with reporter.step("cloud: OpenStack's environment") as step:
            environment = env.ensure(paths, step)
        _CloudStart(
            config,
            folders,
            reporter=reporter,
            environment=environment,
            registry=registry,
            clock=clock,
            store=database_image.DatabaseImages(paths),
            nifcloud=nifcloud,
        ).run(running, use_snapshot=use_snapshot, clouds_file=clouds_file or clouds_yaml.user_file())


class _CloudStart:
    def __init__(
        self,
        config: LocalCloudConfig,
        paths: CloudPaths,
        *,
        reporter: Reporter,
        environment: env.OpenStackEnv,
        registry: Path | None,
        clock: Clock,
        store: database_image.DatabaseImages,
        nifcloud: bool,
    ) -> None:
        self.config, self.paths, self.reporter, self.clock = config, paths, reporter, clock
        self.environment, self.registry, self.store = environment, registry, store
        self.control = Control(paths.control_socket, clock)
        self.nifcloud = nifcloud

    def run(self, running: int | None, *, use_snapshot: bool, clouds_file: Path) -> None:
        complete = self.paths.root / "complete"
        if running is not None and complete.exists():
            self._complete(running, clouds_file)
            return
        # also a namespace that an interrupted `up` started and had not put on record yet
        ends.end(self.config, self.paths)
        if not complete.exists():
            # an `up` was interrupted while it made the cloud: nobody has used it yet
            ends.clear(self.config, self.paths)
        self._folders()
        key = database_image.key(self.config, self.environment, paths=self.paths)
        if complete.exists():
            how = "kept"
        elif use_snapshot and self.store.exists(key):
            with self.reporter.step("cloud: databases from snapshot"):
                self.store.restore(key, self.paths)
            how = "restored"
        else:
            how = "new"
        for line in tuning.tune(self.config.name, outbound=self.config.outbound):
            self.reporter.note(line)
        context = self._render()
        held = [] if how != "new" else [*(name for names in STARTS.values() for name in names), "mariadb"]
        with self.reporter.step("cloud: namespace"):
            self._launch(context, held)
        api = Api(self.config, context.secrets.admin)
        if how == "new":
            run_graph(Setup(context, self.control, api=api, clock=self.clock).tasks(), self.reporter, workers=4)
            database.relaxed(self.paths, on=False)
        self._wait(context, api)
        if how == "new" and use_snapshot:
            with self.reporter.step("cloud: snapshot for next time"):
                self._snapshot(key)
        complete.touch()
        self._tell_user(context, clouds_file)

    def _snapshot(self, key: str) -> None:
        """The cloud is whole without it: the next new one only takes longer."""
        try:
            self.store.take(key, self.paths)
        except (OSError, NoSpace, ProcessError) as error:
            self.reporter.note(f"cloud {self.config.name!r}: no snapshot is kept for the next time: {error}")

    def _complete(self, init: int, clouds_file: Path) -> None:
        """The cloud runs: put right what may be missing around it, and wait until it is whole."""
        host.attach(self.config, init)
        context = self._render()
        self.control.wait_answer(20)
        if SupervisorPlan.load(self.paths.services_file).services != tuple(services(context)):
            # The cloud was created without the registry's program, without NIFCLOUD's API, or by another version of moyai. A
            # running service goes on. When it ends, the supervisor starts it as this version of moyai wants it.
            self._write_plan(context, [])
            self.control.reload()
            self.control.wait_answer(20)
        self._wait(context, Api(self.config, context.secrets.admin))
        self._tell_user(context, clouds_file)

    def _folders(self) -> None:
        # what a former run left in run/ means nothing in new namespaces
        shutil.rmtree(self.paths.run, ignore_errors=True)
        of_hypervisors = [f"state/nova-{hypervisor.host}" for hypervisor in self.config.hypervisors]
        for name in ("", *_SUBFOLDERS, *of_hypervisors):
            # one by one: folders made on the way to another would be open to all
            (self.paths.root / name).mkdir(exist_ok=True, mode=0o700)
        write_private(self.paths.record, self.config.to_json())

    def _context(self) -> ServiceContext:
        values = secrets.load(self.paths.secrets)
        if values is None:
            values = secrets.generate()
            secrets.save(self.paths.secrets, values)
        registry = self.registry or _recorded_registry(self.paths)
        return ServiceContext(
            self.config,
            self.paths,
            self.environment,
            values,
            str(cgroups.find(self.config.cgroup)),
            registry,
            host.nameservers() if self.config.outbound else (),
            self._nifcloud(),
            sys.executable,
            str(Path(moyai.__file__).parents[1]),
        )

    def _nifcloud(self) -> NifcloudAccess | None:
        if self.nifcloud:
            return nifcloud_access.ensure(self.config, self.paths, clock=self.clock)
        return nifcloud_access.load(self.paths)

    def _tell_user(self, context: ServiceContext, clouds_file: Path) -> None:
        """How to get in: clouds.yaml, and the file of NIFCLOUD's access key beside it."""
        clouds_yaml.put(clouds_file, self.config, secrets=context.secrets)
        if context.nifcloud:
            nifcloud_access.put(clouds_file, self.config, paths=self.paths, access=context.nifcloud)

    def _render(self) -> ServiceContext:
        context = self._context()
        env.link_package(self.paths.python)
        for name, text in files(context).items():
            write_private(self.paths.conf / name, text)
        if context.registry:
            write_private(self.paths.conf / "registry-program", str(context.registry))
        return context

    def _write_plan(self, context: ServiceContext, held: Sequence[str]) -> None:
        plan = SupervisorPlan(self.config.address, tuple(services(context)), tuple(held))
        write_private(self.paths.services_file, plan.to_json())

    def _launch(self, context: ServiceContext, held: Sequence[str]) -> None:
        self._write_plan(context, held)
        argv = [
            *cgroups.scope_prefix(self.config.cgroup),
            sys.executable,
            "-m",
            "moyai.localcloud.launch",
            str(self.paths.root),
        ]
        try:
            run(argv, timeout=60)
        except ProcessError as error:
            raise MoyaiError(f"the cloud's namespace does not start: {error}") from error
        init = _init(self.paths)
        assert init is not None
        host.attach(self.config, init)
        self.control.wait_answer(20)

    def _wait(self, context: ServiceContext, api: Api) -> None:
        with self.reporter.step("cloud: services") as step:
            names = [service.name for service in services(context)]
            step.progress(f"{len(names)} services")
            self.control.wait_ready(names, 240)
        with self.reporter.step("cloud: agents") as step:
            agents.wait(self.config, api, starts=self._starts, clock=self.clock, step=step, timeout=180)

    def _starts(self) -> dict[str, float]:
        return {service.name: service.since for service in self.control.status()}


def down(
    config: LocalCloudConfig, paths: Paths, *, reporter: Reporter, keep: bool = False, clouds_file: Path | None = None
) -> list[str]:
    """End the cloud and delete its state (``keep``: only end it). Returns what was left behind all the same."""
    require_root()
    folders = CloudPaths(paths.cloud(config.name))
    with locked(config.name, reporter):
        ends.refuse_foreign(config, folders)
        config = recorded(folders) or config
        with reporter.step("cloud: end everything"):
            ends.end(config, folders)
        with reporter.step("cloud: clean the host"):
            for line in tuning.restore(config.name):
                reporter.note(line)
            if not keep:
                clouds_yaml.remove(clouds_file or clouds_yaml.user_file(), config)
                nifcloud_access.remove(clouds_file or clouds_yaml.user_file(), config)
                ends.clear(config, folders)
        return ends.leftovers(config, folders)


def leftovers(config: LocalCloudConfig, paths: Paths) -> list[str]:
    """Everything on the host that belongs to this cloud's running: empty after ``down``."""
    return ends.leftovers(config, CloudPaths(paths.cloud(config.name)))


def restart(config: LocalCloudConfig, paths: Paths, *, names: Sequence[str]) -> None:
    """Ask services to end; the supervisor starts them again."""
    control = Control(CloudPaths(paths.cloud(config.name)).control_socket)
    known = {service.name for service in control.status()}
    for name in names:
        if name not in known:
            raise UsageError(f"no service {name!r}", hint=f"one of {', '.join(sorted(known))}")
    control.restart(names)


def recorded(paths: CloudPaths) -> LocalCloudConfig | None:
    """The configuration that the cloud in this folder was made with."""
    try:
        return LocalCloudConfig.from_json(paths.record.read_text())
    except FileNotFoundError:
        return None


def _recorded_registry(paths: CloudPaths) -> Path | None:
    try:
        return Path((paths.conf / "registry-program").read_text())
    except FileNotFoundError:
        return None


def _check_same(config: LocalCloudConfig, paths: CloudPaths) -> None:
    existing = recorded(paths)
    if existing is not None and existing != config and (paths.root / "complete").exists():
        differing = [key for key, value in asdict(existing).items() if asdict(config)[key] != value]
        raise UsageError(
            f"cloud {config.name!r} exists with another {', '.join(differing)}",
            hint=f"`moyai cloud down --name {config.name}` first, or give this one another name",
        )


def _init(paths: CloudPaths) -> int | None:
    """The pid of the namespace's init, if the cloud runs."""
    record = proc.ProcessRecord.load(paths.init_record)
    return record.pid if record and record.alive() else None


def require_root() -> None:
    """Raises UsageError for anybody but root."""
    if os.geteuid() != 0:
        raise UsageError("the local cloud needs root (namespaces, bridges, loop devices)", hint="run it with sudo")


def locked(name: str, reporter: Reporter) -> contextlib.AbstractContextManager[None]:
    """Keep other commands from changing this cloud meanwhile. A note names a command that must end first."""
    return file_lock(
        Path("/run/lock") / f"moyai-cloud-{name}.lock",
        lambda holder: reporter.note(f"cloud {name!r}: waiting for {holder}, which is at work on it"),
        waiting=reporter.waiting,
    )

"""The toolchain as its users see it: installed components, missing ones, and getting them.

All sources are fetched at the same time. Builds take turns in the order of ``pins.toml``: small components come first, so that
the tasks that wait for them can go on, and Kubernetes, which takes longest, comes last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from moyai.core.errors import MoyaiError, Retriable, UsageError
from moyai.core.graph import Task, run_graph
from moyai.core.paths import Paths
from moyai.core.progress import Progress, Reporter
from moyai.toolchain.component_store import Component, ComponentStore
from moyai.toolchain.golang import GoToolchain
from moyai.toolchain.pins import Architecture, Pin, Pins, Release, architecture, load_pins, single
from moyai.toolchain.release import ChecksumMismatch, Hosts, fetch

#: Where a missing component may come from: ``auto`` is the release file where it can be had, else a build.
Source = Literal["auto", "release", "modules"]

#: Tasks are called this and the component's name.
TASK_PREFIX = "toolchain: "

GO = "go"
#: Program → the component it is of: programs that are of use without the rest of it.
SINGLES: Mapping[str, str] = {"kubectl": "kubernetes"}


@dataclass(frozen=True)
class ListedComponent:
    """One line of the list: ``component`` is None while it is missing; ``folder`` is where it is or will be.

    ``needed_by``: empty for what moyai needs; else the make target of moyai's own tests that alone needs it. ``instead_of``:
    the component that it is another version of.
    """

    name: str
    version: str
    folder: Path
    component: Component | None
    needed_by: str = ""
    instead_of: str = ""


class Toolchain:
    def __init__(
        self,
        paths: Paths,
        reporter: Reporter,
        *,
        source: Source = "auto",
        pins: Pins | None = None,
        hosts: Hosts | None = None,
    ) -> None:
        arch: Architecture = architecture()
        self._reporter = reporter
        self._source: Source = source
        self._pins = pins or load_pins(arch)
        self._store = ComponentStore(paths.toolchain)
        self._hosts = hosts or Hosts()
        self._go = GoToolchain(paths, self._pins.go, arch=arch)

    @property
    def names(self) -> list[str]:
        """All components, in the order in which they are best got (Go last: it is got when it is needed)."""
        return [*self._pins.components, GO]

    @property
    def own_names(self) -> list[str]:
        """As ``names``, without what only moyai's own tests need and without other versions."""
        pins = self._pins.components
        return [name for name in self.names if name == GO or not (pins[name].needed_by or pins[name].instead_of)]

    def needed_by(self, target: str) -> list[str]:
        """The components that a make target of moyai's own tests needs and moyai does not."""
        return [pin.name for pin in self._pins.components.values() if pin.needed_by == target]

    def versions(self, name: str) -> dict[str, str]:
        """Version → the component of that version, of ``name`` and of what is pinned instead of it; what only moyai's own tests
        need is left out until it is installed."""
        same = (pin for pin in self._pins.components.values() if name in (pin.name, pin.instead_of))
        return {pin.version: pin.name for pin in same if not pin.needed_by or self._store.find(pin)}

    def needs_compiler(self, name: str) -> bool:
        """Whether a missing component is made with the host's C compiler."""
        return self._pins.components[name].needs_compiler

    def version(self, name: str) -> str:
        """The pinned version of a component."""
        return self._pin(name).version

    def find(self, name: str) -> Component | None:
        """The component if it is installed; never fetches or builds."""
        if name == GO:
            go = self._go.installed()
            return Component(GO, go.version, go.origin, {"go": go.program}) if go else None
        return self._store.find(self._pin(name))

    def list(self) -> list[ListedComponent]:
        """Every component: installed, with its origin, or missing."""
        lines = [
            ListedComponent(pin.name, pin.version, self._store.path(pin), self._store.find(pin), pin.needed_by, pin.instead_of)
            for pin in self._pins.components.values()
        ]
        go = self.find(GO)
        folder = go.files["go"].parent if go else self._go.folder
        return [*lines, ListedComponent(GO, go.version if go else self._pins.go.version, folder, go)]

    def ensure(self, names: Iterable[str]) -> dict[str, Component]:
        """Get the missing components of ``names`` at the same time, and return all of them.

        Raises UsageError for an unknown name, else MoyaiError: no network, disk full, a wrong checksum.
        """
        wanted = list(dict.fromkeys(names))
        there = {name: component for name in wanted if (component := self.find(name))}
        missing = [name for name in wanted if name not in there]
        if missing:
            results = run_graph(self.tasks(missing), self._reporter, workers=len(missing))
            there |= {name: results[TASK_PREFIX + name] for name in missing}
        return {name: there[name] for name in wanted}

    def tasks(self, names: Sequence[str] | None = None, *, after: tuple[str, ...] = ()) -> list[Task]:
        """One task a component for ``core.graph``; its result is the Component. ``after``: what the tasks wait for.

        Give the graph a worker for each: a task that waits for its turn to build occupies one.
        """
        return [Task(TASK_PREFIX + name, self._run(name), after) for name in (names or list(self._pins.components))]

    def get(self, name: str, step: Progress) -> Component:
        """One component, got if it is missing; progress goes to ``step``."""
        if found := self.find(name):
            return found
        if name == GO:
            go = self._go.ensure(step)
            return Component(GO, go.version, go.origin, {"go": go.program})
        pin = self._pin(name)
        if pin.release and self._source != "modules":
            self._hosts.start([pin.release.url])

        def on_wait(holder: str) -> None:
            step.progress(f"waiting for {holder}, which makes it")
            self._reporter.note(f"{name}: waiting for {holder}, which makes it")

        return self._store.make(pin, lambda target: self._fill(pin, target, step=step), on_wait=on_wait)

    def find_program(self, program: str) -> Path | None:
        """One of ``SINGLES`` if it is installed, with its component or alone; never fetches or builds."""
        whole = self.find(SINGLES[program])
        component = whole or self._store.find(self._single(program))
        return component.files[program] if component else None

    def get_program(self, program: str, step: Progress) -> Path:
        """One of ``SINGLES`` alone, got if it is missing: as a release, or built where this machine has Go.

        Raises MoyaiError where neither is possible.
        """
        if found := self.find_program(program):
            return found
        pin = self._single(program)
        release = pin.release
        if not (release and self._hosts.answer(release.url)) and self._go.installed() is None:
            why = f"{urlsplit(release.url).netloc} does not answer" if release else "it has no release file"
            raise MoyaiError(f"{program} cannot be fetched: {why}, and this machine has no Go to build it with")

        def on_wait(holder: str) -> None:
            step.progress(f"waiting for {holder}, which makes it")

        component = self._store.make(pin, lambda target: self._fill(pin, target, step=step), on_wait=on_wait)
        return component.files[program]

    def _single(self, program: str) -> Pin:
        return single(self._pin(SINGLES[program]), program)

    def clean(self) -> tuple[list[Path], int]:
        """Remove older versions, and sources and compiled packages; returns the folders and the bytes of the latter."""
        kept = {
            **self._pins.components,
            **{program: self._single(program) for program, of in SINGLES.items() if of in self._pins.components},
        }
        return self._store.remove_others(kept), self._go.clean()

    def _run(self, name: str) -> Callable[[Mapping[str, Any], Progress], Component]:
        self._pin(name) if name != GO else None
        return lambda _, step: self.get(name, step)

    def _pin(self, name: str) -> Pin:
        pin = self._pins.components.get(name)
        if pin is None:
            raise UsageError(f"no component is called {name!r}", hint=f"there are {', '.join(self.names)}")
        return pin

    def _fill(self, pin: Pin, target: Path, *, step: Progress) -> str:
        if pin.release and self._from_release(pin, pin.release):
            try:
                return fetch(pin, pin.release, target=target, step=step)
            except (Retriable, ChecksumMismatch) as error:
                if self._source == "release":
                    raise
                # a build checks its own checksums, so it is safe to go on; the note explains why the run takes longer
                self._reporter.note(f"{error}; it is built instead")
                for path in target.iterdir():
                    path.unlink()
        if pin.modules:
            turn = list(self._pins.components).index(SINGLES.get(pin.name, pin.name))
            return self._go.build(pin.name, pin.modules, target=target, step=step, turn=turn)
        assert pin.c is not None  # parse_pins sees to it
        return self._go.build_c(pin.name, pin.c, target=target, step=step)

    def _from_release(self, pin: Pin, release: Release) -> bool:
        if self._source == "modules":
            return False
        if self._hosts.answer(release.url):
            return True
        if self._source == "release":
            raise MoyaiError(
                f"{pin.name} cannot be fetched: {release.url} does not answer", hint="`--from auto` builds it instead"
            )
        return False

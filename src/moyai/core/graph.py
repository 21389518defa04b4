"""Run tasks side by side, each as soon as what it needs is done.

A task runs at most once and only after every task it names in ``after`` succeeded. When one fails, nothing new starts,
what is running is waited for, and the first error is raised: that of a task that failed by itself, not that of one that
stopped waiting because of it. Results are handed to later tasks by key. Which tasks are ready is
graphlib's to say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from moyai.core.progress import Progress, Reporter
from moyai.core.waiting import Stopped

#: What a task gets: the results of all finished tasks by key, and its own step to report progress to.
TaskFunction = Callable[[Mapping[Any, Any], Progress], Any]


@dataclass(frozen=True)
class Task:
    """``name`` is shown to the user. ``run`` returns the task's result. ``after``: keys of the tasks it needs. ``identity``:
    what distinguishes the task from all others, where its name may be another task's too."""

    name: str
    run: TaskFunction
    after: tuple[Hashable, ...] = field(default=())
    identity: Hashable = None

    @property
    def key(self) -> Hashable:
        """Its identity; its name where it has no other."""
        return self.name if self.identity is None else self.identity


def run_graph(tasks: Iterable[Task], reporter: Reporter, *, workers: int = 8) -> dict[Any, Any]:
    """Run all tasks; return their results by key.

    Raises ValueError for a key that is there twice and for an unknown or circular ``after``, else the first error of a task.
    """
    given = _by_key(tasks)
    shown, position = _shown(given), {key: number for number, key in enumerate(given)}
    sorter = _sorter(given)
    reporter.plan(list(shown.values()))
    results: dict[Any, Any] = {}
    running: dict[Future[Any], Hashable] = {}
    error: BaseException | None = None

    def call(task: Task) -> Any:
        with reporter.step(shown[task.key]) as step:
            return task.run(results, step)

    with reporter.waiting(), ThreadPoolExecutor(max_workers=workers, thread_name_prefix="task") as pool:
        while sorter.is_active():
            if error is None:
                for key in sorted(sorter.get_ready(), key=lambda one: position[one]):
                    running[pool.submit(call, given[key])] = key
            elif not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                key = running.pop(future)
                try:
                    results[key] = future.result()
                except BaseException as caught:
                    if error is None or (isinstance(error, Stopped) and not isinstance(caught, Stopped)):
                        error = caught
                else:
                    sorter.done(key)
    if error is not None:
        raise error
    return results


def _by_key(tasks: Iterable[Task]) -> dict[Hashable, Task]:
    found: dict[Hashable, Task] = {}
    for task in tasks:
        if task.key in found:
            raise ValueError(f"two tasks are called {task.key!r}")
        found[task.key] = task
    for task in found.values():
        for key in task.after:
            if key not in found:
                raise ValueError(f"task {task.name!r} needs {key!r}, which is not there")
    return found


def _shown(tasks: Mapping[Hashable, Task]) -> dict[Hashable, str]:
    """Key → the name in reports, where a name belongs to one task alone: the second of a name gets its number."""
    seen: Counter[str] = Counter()
    shown: dict[Hashable, str] = {}
    for key, task in tasks.items():
        seen[task.name] += 1
        shown[key] = task.name if seen[task.name] == 1 else f"{task.name} ({seen[task.name]})"
    return shown


def _sorter(tasks: Mapping[Hashable, Task]) -> TopologicalSorter[Hashable]:
    sorter: TopologicalSorter[Hashable] = TopologicalSorter({key: task.after for key, task in tasks.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        # the error's second argument is the circle, its first task repeated at the end
        circle: list[Hashable] = error.args[1]
        names = sorted({tasks[key].name for key in circle})
        raise ValueError(f"tasks need each other in a circle: {', '.join(names)}") from error
    return sorter

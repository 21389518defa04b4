"""Run tasks side by side, each as soon as what it needs is done.

A task runs at most once and only after every task it names in ``after`` succeeded. When one fails, nothing new starts,
what is running is waited for, and the first error is raised. Results are handed to later tasks by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from moyai.core.progress import Progress, Reporter

#: What a task gets: the results of all finished tasks by name, and its own step to report progress to.
TaskFunction = Callable[[Mapping[str, Any], Progress], Any]


@dataclass(frozen=True)
class Task:
    """``name`` is shown to the user. ``run`` returns the task's result. ``after``: names of the tasks it needs."""

    name: str
    run: TaskFunction
    after: tuple[str, ...] = field(default=())


def run_graph(tasks: Iterable[Task], reporter: Reporter, *, workers: int = 8) -> dict[str, Any]:
    """Run all tasks; return their results by name.

    Raises ValueError for an unknown or circular ``after``, else the first error of a task.
    """
    waiting = {task.name: task for task in tasks}
    _check(waiting)
    reporter.plan(list(waiting))
    results: dict[str, Any] = {}
    running: dict[Future[Any], str] = {}
    error: BaseException | None = None

    def call(task: Task) -> Any:
        with reporter.step(task.name) as step:
            return task.run(results, step)

    with reporter.waiting(), ThreadPoolExecutor(max_workers=workers, thread_name_prefix="task") as pool:
        while running or (waiting and error is None):
            if error is None:
                ready = [task for task in waiting.values() if all(name in results for name in task.after)]
                for task in ready:
                    running[pool.submit(call, waiting.pop(task.name))] = task.name
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                try:
                    results[name] = future.result()
                except BaseException as caught:
                    error = error or caught
    if error is not None:
        raise error
    return results


def _check(tasks: Mapping[str, Task]) -> None:
    for task in tasks.values():
        for name in task.after:
            if name not in tasks:
                raise ValueError(f"task {task.name!r} needs {name!r}, which is not there")
    try:
        TopologicalSorter({task.name: task.after for task in tasks.values()}).prepare()
    except CycleError as error:
        # the error's second argument is the circle, its first task repeated at the end
        circle: list[str] = error.args[1]
        raise ValueError(f"tasks need each other in a circle: {', '.join(sorted(set(circle)))}") from error

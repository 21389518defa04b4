"""The queue of a controller that has one subject alone, such as the network of its node: whatever changes, all is looked at."""

from __future__ import annotations

from collections.abc import Callable

from moyai.kube.workqueue import WorkQueue


class OneKey:
    """``start`` is the ``watch`` of the controller's ``Part``. Before that, nothing is queued: the start looks at all.

    ``relevant``: what of an object matters, so that a change of anything else is none."""

    def __init__(self, key: str, *, relevant: Callable[[object], object]) -> None:
        self.key = key
        self._relevant = relevant
        self._queue: WorkQueue | None = None

    def start(self, queue: WorkQueue) -> None:
        self._queue = queue
        queue.add(self.key)

    def again(self) -> None:
        if self._queue is not None:
            self._queue.add(self.key)

    def later(self, seconds: float) -> None:
        if self._queue is not None:
            self._queue.add_later(self.key, seconds)

    def changed(self, _key: str, *seen: object) -> None:
        """A handler of an informer, which hands over the object as it was and as it is."""
        old, new = seen
        if self._relevant(old) != self._relevant(new):
            self.again()

"""``python -m tests.simulate``: all sizes, each in a process of its own, so that its memory is its own."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.simulate.figures import Run, growing, table
from tests.simulate.run import measure

#: Nodes and Services.
SIZES = ((1, 1), (10, 10), (100, 100), (500, 1000))


def main() -> int:
    runs: list[Run] = []
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for run in pool.map(measure, *zip(*SIZES, strict=True)):
            print("\n".join(table(run)), flush=True)
            runs.append(run)
    found = growing(runs)
    for one in found:
        print(f"grows: {one}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

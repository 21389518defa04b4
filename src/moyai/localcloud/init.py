"""The first process in a cloud's namespaces: ends them all when it ends.

``python -m moyai.localcloud.init ROOT FD``. It makes the inside (``inside``: mounts, bridges, hypervisors' namespaces), says
"ready" on FD, then does two things for ever: take in the orphans (machines among them), and start the supervisor again
whenever that ends. It holds no state, so nothing can go wrong in it later; services outlive a lost supervisor.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from moyai.core.backoff import Backoff
from moyai.linux import daemons
from moyai.linux.process import ProcessError
from moyai.localcloud import inside
from moyai.localcloud.launch import READY
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig


def main() -> int:
    root, channel = sys.argv[1], int(sys.argv[2])
    paths = CloudPaths(Path(root))
    # without Python's own handler the first process of a pid namespace is deaf to it
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        inside.prepare(LocalCloudConfig.from_json(paths.record.read_text()), paths.run)
    except (ProcessError, OSError) as error:
        os.write(channel, f"the cloud's namespace cannot be made: {' '.join(str(error).split())}\n".encode())
        return 1
    os.set_inheritable(channel, False)
    os.write(channel, READY)
    os.close(channel)
    _keep_supervisor(root)
    return 0


def _keep_supervisor(root: str) -> None:
    backoff = Backoff(base=0.2, ceiling=5.0)
    failures = 0
    while True:
        started = time.monotonic()
        daemons.run_as_init([sys.executable, "-m", "moyai.localcloud.supervisor", root])
        failures = 0 if time.monotonic() - started > 10 else failures + 1
        time.sleep(backoff.delay(failures))


if __name__ == "__main__":
    sys.exit(main())

"""What a control plane does on its own machine when it leaves the others. Standard library; run as root in a pod that sees the
machine's processes and the manifests of its static pods.

address  lets another machine take the API's virtual address: keepalived says goodbye when it ends, and once systemd has
         started it again it takes no address that another machine has.
servers  ends the API server, the controller manager and the scheduler. The kubelet ignores files whose names begin with a
         dot, so the manifests are still there for a person. etcd goes on.

Always holds: both may be done again at any time.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path

PROCESSES = Path(os.environ.get("MOYAI_PROC", "/proc"))
MANIFESTS = Path(os.environ.get("MOYAI_MANIFESTS", "/etc/kubernetes/manifests"))
KEEPALIVED = "keepalived"
#: The API server last: the others need it for their last words.
SERVERS = ("kube-scheduler", "kube-controller-manager", "kube-apiserver")


def keepaliveds() -> list[int]:
    """Process ids of those that no other keepalived has started."""
    parents: dict[int, int] = {}
    for folder in PROCESSES.glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text()
        except OSError:
            continue  # it has ended
        name = fields[fields.index("(") + 1 : fields.rindex(")")]
        if name == KEEPALIVED:
            parents[int(folder.name)] = int(fields[fields.rindex(")") + 1 :].split()[1])
    return [process for process, parent in parents.items() if parent not in parents]


def address() -> None:
    for process in keepaliveds():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)


def servers() -> None:
    for name in SERVERS:
        file = MANIFESTS / f"{name}.yaml"
        with contextlib.suppress(FileNotFoundError):
            file.rename(file.with_name(f".{file.name}"))


if __name__ == "__main__":
    {"address": address, "servers": servers}[sys.argv[1]]()

"""Starts a cloud's namespace: ``python -m moyai.localcloud.launch ROOT``, ROOT being the cloud's folder.

The program runs in the host's namespaces, on systemd hosts in a separate delegated scope. It prepares the control group, starts
the namespace's init, waits until the init reports that the namespace is ready, records the init, and ends. An error is one line
on standard error.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from moyai.core.files import write_private
from moyai.linux import cgroups, daemons, proc
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig

READY = b"ready\n"


def main() -> int:
    paths = CloudPaths(Path(sys.argv[1]))
    config = LocalCloudConfig.from_json(paths.record.read_text())
    try:
        cgroups.prepare(config.cgroup)
    except cgroups.CgroupError as error:
        print(error, file=sys.stderr)  # noqa: T201 - this program's one way to speak
        return 1
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    init = [sys.executable, "-m", "moyai.localcloud.init", str(paths.root), str(writer)]
    log = paths.log / "init.log"
    namespace = daemons.NamespaceInit.start(init, log=log, channel=writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        said = stream.readline()
    if said != READY:
        text = said.decode(errors="replace").strip() or f"its init ended with {namespace.wait()}"
        print(f"{text}; see {log}", file=sys.stderr)  # noqa: T201
        return 1
    pid = proc.children(namespace.outer_pid)[0]
    write_private(paths.init_record, proc.ProcessRecord.of(pid).to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())

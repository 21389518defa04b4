"""Controls clusters by the command line only, as a user does, and asks the cloud itself which objects exist."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moyai.cloud.capabilities import Capability
from moyai.cloud.openstack import OpenStackCloud, connect
from moyai.core.ids import cluster_tag
from moyai.images import references
from moyai.kube.resources import Json

ROOT = Path(__file__).parents[2]
MOYAI = [sys.executable, "-c", "from moyai.cli.main import main; main()"]
#: Seconds; generous, for busy machines.
TIMEOUT = 900


def named_objects(cloud: OpenStackCloud) -> Iterator[tuple[str, str]]:
    """Kind and name of everything in the project that a cluster is built of and that has a name of its own."""
    balancers = cloud.load_balancers.load_balancers() if Capability.LOAD_BALANCERS in cloud.capabilities() else []
    for kind, items in (
        ("network", cloud.networks.networks()),
        ("subnet", cloud.networks.subnets()),
        ("router", cloud.routers.routers()),
        ("group", cloud.firewall.security_groups()),
        ("port", cloud.networks.ports()),
        ("server", cloud.machines.servers()),
        ("balancer", balancers),
    ):
        yield from ((kind, item.name) for item in items)


def said(program: str, words: Sequence[str], done: subprocess.CompletedProcess[str]) -> str:
    """What a command answered, for an assertion: its last line first, as a summary of a run shows no other.

    Of an answer for programs, which ends in a bracket, its problems come first.
    """
    last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
    with contextlib.suppress(ValueError, KeyError, TypeError):
        last = "; ".join(json.loads(done.stdout)["problems"])
    return f"{program} {' '.join(words)}: {done.returncode}: {last}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"


class Cluster:
    """One cluster. ``folder`` holds its spec and, with ``manifests``, the quickstart's web server."""

    def __init__(
        self,
        folder: Path,
        cloud: str,
        *,
        workers: int = 2,
        manifests: bool = False,
        network: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = f"e2e-{secrets.token_hex(3)}"
        self.cloud = cloud
        self.folder = folder
        self._network = dict(network or {})
        folder.mkdir(parents=True, exist_ok=True)
        self.write(workers)
        if manifests:
            shutil.copy(ROOT / "examples/quickstart/nginx.yaml", folder)

    def write(self, workers: int) -> None:
        pools = [{"name": "workers", "replicas": workers}] if workers else []
        spec = {"cloud": self.cloud, "nodePools": pools, "network": self._network}
        (self.folder / "cluster.yaml").write_text(json.dumps({"metadata": {"name": self.name}, "spec": spec}))

    def moyai(self, *words: str, expect: int = 0, timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
        """Run one command; its exit code must be ``expect``."""
        environment = {**os.environ, "MOYAI_CLUSTER": self.name}
        done = subprocess.run([*MOYAI, *words], capture_output=True, text=True, timeout=timeout, env=environment, check=False)
        assert done.returncode == expect, said("moyai", words, done)
        assert "Traceback" not in done.stderr
        return done

    def up(self) -> Any:
        return json.loads(self.moyai("up", str(self.folder), "--output", "json").stdout)

    def killed_up(self, moment: str) -> None:
        """Start `up` and kill -9 it when its progress says ``moment``."""
        words = [*MOYAI, "up", str(self.folder)]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said: list[str] = []
            for line in process.stderr:
                said.append(line)
                if moment in line:
                    break
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, f"{moment!r} was never said:\n{''.join(said)}"

    def status(self) -> Any:
        return json.loads(self.moyai("status", self.name, "--output", "json").stdout)

    def kubectl(self, *words: str, expect: int = 0) -> str:
        return self.moyai("kubectl", *words, expect=expect).stdout

    def apply(self, *objects: Json) -> None:
        file = self.folder / "objects.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
        self.kubectl("apply", "-f", str(file))

    def objects(self) -> Counter[str]:
        """How often each name of this cluster is in the cloud."""
        cloud = connect(self.cloud)
        mine = (f"{self.name}-", f"kube_service_{self.name}_")
        found = Counter(f"{kind} {name}" for kind, name in named_objects(cloud) if name.startswith(mine))
        found.update(f"key {name}" for name in cloud.machines.keypairs() if name.startswith(f"{self.name}-"))
        found.update(f"credential {one.name}" for one in cloud.credentials.credentials(name_prefix=f"{self.name}-"))
        return found

    @contextlib.contextmanager
    def removed_at_end(self) -> Generator[None]:
        """Whatever happens within, `moyai down` takes what there is of the cluster then, and nothing of it stays."""
        try:
            yield
        finally:
            if self.objects():
                report = json.loads(self.moyai("down", self.name, "--yes", "--output", "json").stdout)
                assert report["left"] == 0
        assert not self.objects()

    def floating_ips(self, uid: str) -> list[str]:
        return [fip.address for fip in connect(self.cloud).addresses.floating_ips(tag=cluster_tag(uid))]

    # ---- pods of the moyai image, which every node has

    def pod(self, node: str, code: str, *, host: bool = False) -> str:
        """Start a pod on ``node`` that runs this Python; returns its name."""
        name = f"py-{secrets.token_hex(3)}"
        spec = {"nodeName": f"{self.name}-{node}", "hostNetwork": host, "tolerations": [{"operator": "Exists"}]}
        self.kubectl(
            *("run", name, f"--image={references.MOYAI}", "--image-pull-policy=Never", "--restart=Never"),
            f"--overrides={json.dumps({'spec': spec})}",
            *("--command", "--", "python3", "-u", "-c", code),
        )
        return name

    def pod_address(self, name: str) -> str:
        self.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=180s")
        return self.kubectl("get", "pod", name, "-o", "jsonpath={.status.podIP}")

    def python(self, node: str, code: str) -> str:
        """Run Python in a pod on ``node``; returns what it printed."""
        name = self.pod(node, code)
        self.kubectl("wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=180s")
        printed = self.kubectl("logs", name).strip()
        self.kubectl("delete", "pod", name, "--wait=false")
        return printed

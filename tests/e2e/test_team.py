"""One cluster and two machines: a colleague joins it, scales it and removes it; the machine that built it follows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from moyai.core.paths import default_paths
from tests.e2e.driver import MOYAI, TIMEOUT, Cluster, said

pytestmark = pytest.mark.long


class Colleague:
    """Another machine: a state folder of its own, and the same cloud."""

    def __init__(self, cluster: Cluster, state: Path) -> None:
        self._cluster, self.state = cluster, state
        self.environment = {**os.environ, "MOYAI_CLUSTER": cluster.name, "MOYAI_STATE_DIR": str(state)}

    def moyai(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*MOYAI, *words], capture_output=True, text=True, timeout=TIMEOUT, env=self.environment, check=False
        )
        assert done.returncode == expect, said("moyai", words, done)
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture(scope="module")
def built(cloud_name: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("team"), cloud_name, workers=1)
    with made.removed_at_end():
        made.up()
        yield made
        # what is left of the record, if a colleague has removed the cluster
        subprocess.run([*MOYAI, "down", made.name, "--yes"], capture_output=True, timeout=TIMEOUT, check=False)


def test_a_colleague_goes_on_where_the_first_one_stopped(built: Cluster, tmp_path: Path) -> None:
    cluster = built
    folder, colleague = default_paths().clusters / cluster.name, Colleague(cluster, tmp_path / "state")
    record = folder / "record.json"
    secret = json.loads(cluster.kubectl("-n", "kube-system", "get", "secret", "moyai-record", "-o", "json"))
    assert int(secret["metadata"]["annotations"]["moyai.dev/serial"]) == json.loads(record.read_text())["serial"]

    # refused: a name that is not its own; then joined
    kubeconfig = str(folder / "kubeconfig")
    wrong = colleague.moyai("join", "other", "--kubeconfig", kubeconfig, expect=2)
    assert f"is the record of cluster {cluster.name}, not of other" in wrong.stderr
    joined = json.loads(colleague.moyai("join", cluster.name, "--kubeconfig", kubeconfig, "--output", "json").stdout)
    assert (joined["name"], joined["changed"]) == (cluster.name, True)
    nodes = json.loads(colleague.moyai("status", cluster.name, "--output", "json").stdout)["nodes"]
    assert len(nodes) == 2

    # at once: the second command is told who is at work
    words = [*MOYAI, "up", str(cluster.folder)]
    phrase, file = tmp_path / "phrase", tmp_path / "record.moyai"
    phrase.write_text("correct horse\n")
    cluster.write(2)
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, env=colleague.environment, stdout=quiet, stderr=subprocess.PIPE, text=True) as busy:
        assert busy.stderr is not None
        next(line for line in busy.stderr if "server" in line)
        # a command that does nothing before it has the cluster for itself
        refused = cluster.moyai(
            *("backup", cluster.name, "--file", str(tmp_path / "b.moyai"), "--passphrase-file", str(phrase)), expect=1
        )
        assert "has worked with `moyai up` since" in refused.stderr
        assert f"(process {busy.pid})" in refused.stderr
        # killed: its own machine goes on at once
        busy.send_signal(signal.SIGKILL)
    done = json.loads(colleague.moyai("up", str(cluster.folder), "--output", "json").stdout)
    assert len(done["nodes"]) == 3

    # the first one's record is older, and takes the newer one
    plan = cluster.moyai("plan", str(cluster.folder))
    assert "is older than the cluster's (write" in plan.stderr
    assert json.loads(record.read_text()) == json.loads(
        (colleague.state / "clusters" / cluster.name / "record.json").read_text()
    )
    assert not cluster.up()["changed"]
    assert "uid=" in cluster.moyai("ssh", "workers-1", "id").stdout
    assert "uid=" in colleague.moyai("ssh", "workers-1", "id").stdout

    # a vault
    cluster.moyai("export", cluster.name, "--file", str(file), "--passphrase-file", str(phrase))
    third = Colleague(cluster, tmp_path / "third")
    third.moyai("join", cluster.name, "--file", str(file), "--passphrase-file", str(phrase))
    assert "nothing to do" in third.moyai("up", str(cluster.folder)).stdout
    phrase.write_text("another\n")
    wrong = Colleague(cluster, tmp_path / "fourth").moyai(
        *("join", cluster.name, "--file", str(file), "--passphrase-file", str(phrase)), expect=2
    )
    assert "the passphrase is another" in wrong.stderr

    # a person who uses the cluster
    config = tmp_path / "bert.conf"
    config.write_text(cluster.moyai("kubeconfig", cluster.name, "--user", "bert", "--group", "web", "--for", "10m").stdout)
    who = json.loads(cluster.kubectl("--kubeconfig", str(config), "auth", "whoami", "-o", "json"))["status"]["userInfo"]
    assert (who["username"], set(who["groups"])) == ("bert", {"web", "system:authenticated"})
    assert cluster.kubectl("--kubeconfig", str(config), "auth", "can-i", "get", "pods", expect=1).strip() == "no"

    report = json.loads(colleague.moyai("down", cluster.name, "--yes", "--output", "json").stdout)
    assert report["left"] == 0
    assert not cluster.objects()

"""A cluster in memory whose machines have folders of keys: what the tests of rotations share."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from moyai.bootstrap import pki
from moyai.ccm import manifests as ccm
from moyai.core.progress import Reporter
from moyai.kube.resources import CONFIG_MAPS, SECRETS
from moyai.lifecycle import rotate as rotating
from moyai.lifecycle.record import Record
from moyai.lifecycle.record_format import SECRET_NAMES
from moyai.lifecycle.rotate import RotationResult
from moyai.plan import keys as keys_of
from moyai.plan.rotation import Rotated
from tests.fakes.machine_folders import MachineFolders
from tests.unit.lifecycle_world import World

ONE = "spec: {nodePools: [{replicas: 1}]}"
THREE = "spec: {controlPlane: {replicas: 3}, nodePools: [{replicas: 1}]}"
PLANE, WORKER = "quickstart-control-plane-0", "quickstart-workers-0"


class RotationWorld(World):
    """``first``: the authority that the cluster was made with. ``age``: of the cluster, in seconds."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, spec: str, age: float = 3600) -> None:
        super().__init__(folder / "world", monkeypatch)
        monkeypatch.setattr(rotating, "open_api", self.open_api)
        self.spec = spec
        self.up(spec)
        self.folders = MachineFolders(folder / "machines", self.kube().store)
        self.kube().folders = self.folders
        keys = self.keys()
        self.first = x509.load_pem_x509_certificate(keys.ca)
        for server in self.store.servers:
            self.folders.make(server.name, keys, encryption=self.record().secret("encryption-key"), now=self.clock.now())
        for name in ("one", "two"):
            self.kube().store.put(SECRETS, {"metadata": {"name": name, "namespace": "default"}, "data": {}})
            self.folders.stored(f"default/{name}", by=PLANE)
        trusted = base64.b64encode(keys.ca).decode()
        info = yaml.safe_dump({"clusters": [{"name": "", "cluster": {"certificate-authority-data": trusted}}]})
        meta = {"name": "cluster-info", "namespace": "kube-public"}
        self.kube().store.put(CONFIG_MAPS, {"metadata": meta, "data": {"kubeconfig": info}})
        kept, names = self.record().secrets(), self.cloud.kind.volume_names
        for secret, key in ((ccm.NAME, keys_of.CONTROLLERS_CREDENTIAL), (names.secret, keys_of.VOLUMES_CREDENTIAL)):
            text = f"[Global]\nid={self.record().objects[key].id}\nsecret={kept[SECRET_NAMES[key]]}\n"
            data = {
                "cloud.conf": base64.b64encode(text.encode()).decode(),
                "https_proxy": base64.b64encode(b"http://x").decode(),
            }
            self.kube().store.put(SECRETS, {"metadata": {"name": secret, "namespace": "kube-system"}, "data": data})
        self.clock.sleep(age)

    def cloud_conf(self, secret: str) -> str:
        found = self.kube().store.find(SECRETS, secret, namespace="kube-system")["data"]["cloud.conf"]
        return base64.b64decode(found).decode()

    def record(self) -> Record:
        found = Record.open(self.paths, "quickstart", clock=self.clock)
        assert found is not None
        return found

    def keys(self) -> pki.Pki:
        return pki.ensure(self.record().folder / "pki", self.clock)

    def rotate(self, what: Rotated) -> RotationResult:
        reporter = Reporter(clock=self.clock)
        return rotating.rotate("quickstart", self.cloud, what=what, paths=self.paths, reporter=reporter, clock=self.clock)

    def through(self, what: Rotated) -> None:
        """To its end, whatever has to be waited for."""
        while self.rotate(what).waits_until:
            self.clock.sleep(76 * 60)

    def broken(self) -> list[str]:
        return self.folders.broken(roots=[self.first])

"""Clusters on clouds like those of companies: `plan` refuses what a cloud lacks, and a spec that fits gives a whole cluster.

Each cloud is a local one with profiles. A cluster comes up, serves a Service, keeps a file on a volume, and goes away with
everything that it made; what was there before it is as it was.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import urllib.request
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.openstack import connect
from moyai.images import references
from moyai.localcloud import profile
from moyai.localcloud.layout import LocalCloudConfig
from moyai.plan.announce.metallb_words import NAMESPACE
from tests.conftest import running_cloud
from tests.e2e.disks import until
from tests.e2e.driver import MOYAI, Cluster, named_objects

pytestmark = pytest.mark.long

#: Web server of a pod, which keeps a file on its volume and tells it.
WEB = """
import http.server, pathlib
file = pathlib.Path("/data/said")
file.write_text((file.read_text() if file.exists() else "") + "kept")
class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(file.read_bytes())
http.server.ThreadingHTTPServer(("", 8080), Web).serve_forever()
"""


@dataclass(frozen=True)
class Company:
    """``likes``: the profiles of its cloud. ``refused``: a section of a spec → what `plan` says of it. ``spec``: one that fits.
    ``announced``: addresses that the cluster's nodes may announce. ``mode``: of the pod network, that comes of it."""

    likes: tuple[str, ...]
    spec: Mapping[str, Any]
    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    announced: str = ""
    mode: str = "host-gw"


PROVIDER = {"existing": {"network": "corp"}, "disableExternalNetwork": True, "mode": "auto"}
COMPANIES = (
    Company(
        ("provider-network", "no-octavia"),
        {"network": PROVIDER, "services": {"announce": {"ranges": ["10.238.0.192/28"]}}},
        {
            "{}": "has no routers",
            '{"network": {"existing": {"network": "corp"}, "disableExternalNetwork": true}}': "should be 'host-gw'",
            '{"network": {"existing": {"network": "corp"}}}': "disableExternalNetwork: false, should be true",
            '{"network": {"existing": {"network": "crop"}}}': "has no such network",
        },
        announced="10.238.0.192-10.238.0.195",
    ),
    Company(
        ("provider-network", "no-address-pairs"),
        {"network": PROVIDER},
        {json.dumps({"network": {**PROVIDER, "mode": "host-gw"}}): "should be 'vxlan'"},
        mode="vxlan",
    ),
    Company(
        ("no-address-pairs",),
        {"network": {"mode": "auto"}},
        {"{}": "should be 'vxlan'", '{"controlPlane": {"replicas": 3}, "network": {"mode": "vxlan"}}': "should be 'single'"},
        mode="vxlan",
    ),
    Company(("restricted-credential",), {"network": {"mode": "auto"}}),
    Company(("soft-delete",), {"network": {"mode": "auto"}}),
    Company(
        ("two-external-networks",),
        {"network": {"mode": "auto", "externalNetwork": "partner"}},
        {"{}": "should be one of partner, public"},
    ),
)


class CompanyCluster(Cluster):
    """A cluster with a spec of its own."""

    def write(self, workers: int) -> None:
        """Written by ``give``."""

    def give(self, section: Mapping[str, Any]) -> None:
        spec = {"cloud": self.cloud, "nodePools": [{"name": "workers", "replicas": 2}], **section}
        (self.folder / "cluster.yaml").write_text(json.dumps({"metadata": {"name": self.name}, "spec": spec}))

    def web(self, company: Company) -> str:
        """A web server with a volume behind a Service of type LoadBalancer; its address."""
        if company.announced:
            pool = {"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool"}
            meta = {"name": "main", "namespace": NAMESPACE}
            advert = {**pool, "kind": "L2Advertisement", "metadata": meta, "spec": {"ipAddressPools": ["main"]}}
            self.apply({**pool, "metadata": meta, "spec": {"addresses": [company.announced]}}, advert)
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        container = {
            "name": "web",
            "image": references.MOYAI,
            "imagePullPolicy": "Never",
            "command": ["python3", "-u", "-c", WEB],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }
        volume = {"name": "data", "persistentVolumeClaim": {"claimName": "web"}}
        self.apply(
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "web"}, "spec": claim},
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "web", "labels": {"app": "web"}},
                "spec": {"containers": [container], "volumes": [volume]},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "web"},
                "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
            },
        )
        self.kubectl("wait", "pod/web", "--for=condition=Ready", "--timeout=240s")
        where = "jsonpath={.status.loadBalancer.ingress[0].ip}"
        until("the Service has an address", lambda: bool(self.kubectl("get", "service", "web", "-o", where)), within=180)
        return self.kubectl("get", "service", "web", "-o", where)

    def refused(self) -> str:
        """What `plan` says of a spec that the cloud cannot carry."""
        words = [*MOYAI, "plan", str(self.folder)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode in (1, 2), done.stdout
        assert "Traceback" not in done.stderr
        return done.stderr

    def objects_of_all(self) -> list[tuple[str, str]]:
        """Everything that the project sees."""
        return sorted(named_objects(connect(self.cloud)))


def answer(address: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/", timeout=5) as page:
            return str(page.read().decode())
    except (OSError, http.client.HTTPException) as error:
        return str(error)


@pytest.fixture(params=COMPANIES, ids=["+".join(one.likes) for one in COMPANIES])
def company(request: pytest.FixtureRequest) -> Company:
    return request.param


@pytest.fixture
def cloud(company: Company) -> Generator[str]:
    config = LocalCloudConfig(
        "company", management_cidr="10.236.0.0/24", external_cidr="10.237.0.0/24", profile=profile.load(company.likes)
    )
    with running_cloud(config) as name:
        yield name


def test_a_cluster_lives_on_a_companys_cloud_and_leaves_it_as_it_was(company: Company, cloud: str, tmp_path: Path) -> None:
    made = CompanyCluster(tmp_path / "cluster", cloud)
    before = made.objects_of_all()
    for section, message in company.refused.items():
        made.give(json.loads(section))
        done = made.refused()
        assert message in done
        assert len(done.strip().splitlines()) <= 2, "a problem and what to do about it"
    assert made.objects_of_all() == before
    made.give(company.spec)
    with made.removed_at_end():
        made.up()
        assert json.loads(made.moyai("net", "status", "--output", "json").stdout)["mode"] == company.mode
        address = made.web(company)
        until("the Service answers", lambda: answer(address) == "kept", within=120)
        assert not json.loads(made.moyai("plan", str(made.folder), "--output", "json").stdout)["steps"]
    assert made.objects_of_all() == before
    assert not [one for one in connect(cloud).disks.volumes() if one.name.startswith("pvc-")]

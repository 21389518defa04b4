"""A spec from Cluster API's objects: what has a counterpart is in it, and everything else is named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from moyai.core.errors import UsageError
from moyai.core.yamlread import read
from moyai.spec.from_capi import from_capi
from moyai.spec.load import validate

BETA = """
apiVersion: cluster.x-k8s.io/v1beta1
kind: Cluster
metadata: {name: shop}
spec:
  clusterNetwork:
    pods: {cidrBlocks: [10.100.0.0/16]}
    services: {cidrBlocks: [10.101.0.0/16]}
    serviceDomain: cluster.local
  controlPlaneRef: {kind: KubeadmControlPlane, name: shop-cp}
  infrastructureRef: {kind: OpenStackCluster, name: shop}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: OpenStackCluster
metadata: {name: shop}
spec:
  identityRef: {name: shop-clouds, cloudName: corp}
  apiServerLoadBalancer: {enabled: true, allowedCIDRs: [192.0.2.0/24]}
  externalNetwork: {filter: {name: public}}
  managedSecurityGroups: {}
  managedSubnets:
  - {cidr: 10.6.0.0/24, dnsNameservers: [9.9.9.9], allocationPools: [{start: 10.6.0.10, end: 10.6.0.90}]}
  controlPlaneAvailabilityZones: [az1, az2]
  bastion: {enabled: true, spec: {flavor: m1.tiny}}
---
apiVersion: controlplane.cluster.x-k8s.io/v1beta1
kind: KubeadmControlPlane
metadata: {name: shop-cp}
spec:
  replicas: 3
  version: v1.37.1
  machineTemplate: {infrastructureRef: {kind: OpenStackMachineTemplate, name: shop-cp}}
  kubeadmConfigSpec: {clusterConfiguration: {}}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: OpenStackMachineTemplate
metadata: {name: shop-cp}
spec: {template: {spec: {flavor: m1.medium, image: {filter: {name: ubuntu-k8s, tags: [prod]}}, sshKeyName: me}}}
---
apiVersion: cluster.x-k8s.io/v1beta1
kind: MachineDeployment
metadata: {name: md-0}
spec:
  clusterName: shop
  replicas: 0
  template:
    spec:
      version: v1.37.1
      failureDomain: az2
      clusterName: shop
      bootstrap: {configRef: {name: x}}
      infrastructureRef: {kind: OpenStackMachineTemplate, name: shop-md}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: OpenStackMachineTemplate
metadata: {name: shop-md}
spec: {template: {spec: {flavor: m1.large, image: {filter: {name: ubuntu-k8s}}, rootVolume: {sizeGiB: 50}}}}
"""
ALPHA = """
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha7
kind: OpenStackCluster
metadata: {name: old}
spec: {cloudName: corp, nodeCidr: 10.6.0.0/24, dnsNameservers: [9.9.9.9], externalNetworkId: e1}
---
apiVersion: cluster.x-k8s.io/v1beta1
kind: MachineDeployment
metadata: {name: md-0}
spec: {replicas: 4, template: {spec: {infrastructureRef: {name: w}}}}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1alpha7
kind: OpenStackMachineTemplate
metadata: {name: w}
spec: {template: {spec: {flavor: m1.small, image: debian, cloudName: corp}}}
"""


def test_all_that_has_a_counterpart_is_in_the_spec() -> None:
    found = from_capi(read(BETA))
    assert found.spec["metadata"] == {"name": "shop"}
    assert found.spec["spec"] == {
        "cloud": "corp",
        "access": {"apiCIDRs": ["192.0.2.0/24"]},
        "controlPlane": {"replicas": 3, "flavor": "m1.medium", "endpoint": "load-balancer", "zones": ["az1", "az2"]},
        "nodePools": [{"name": "md-0", "replicas": 0, "flavor": "m1.large", "zones": ["az2"]}],
        "network": {
            "nodeCIDR": "10.6.0.0/24",
            "dns": ["9.9.9.9"],
            "externalNetwork": "public",
            "podCIDR": "10.100.0.0/16",
            "serviceCIDR": "10.101.0.0/16",
        },
        "kubernetesVersion": "1.37.1",
        "image": "ubuntu-k8s",
    }
    assert validate(found.spec, source="spec").name == "shop"


def test_everything_else_is_named() -> None:
    assert set(from_capi(read(BETA)).left) == {
        "OpenStackCluster shop: spec.managedSubnets.0.allocationPools.0.start",
        "OpenStackCluster shop: spec.managedSubnets.0.allocationPools.0.end",
        "OpenStackCluster shop: spec.bastion.enabled",
        "OpenStackCluster shop: spec.bastion.spec.flavor",
        "OpenStackMachineTemplate shop-cp: spec.template.spec.image.filter.tags",
        "OpenStackMachineTemplate shop-md: spec.template.spec.rootVolume.sizeGiB",
    }


def test_objects_of_the_older_version_are_read() -> None:
    found = from_capi(read(ALPHA))
    assert found.left == ()
    listed = [{"apiVersion": "v1", "kind": "List", "items": list(read(ALPHA))}]
    assert from_capi(listed) == found, "as kubectl prints several objects"
    assert found.spec["spec"] == {
        "cloud": "corp",
        "controlPlane": {},
        "nodePools": [{"name": "md-0", "replicas": 4, "flavor": "m1.small"}],
        "network": {"nodeCIDR": "10.6.0.0/24", "dns": ["9.9.9.9"], "externalNetwork": "e1"},
        "image": "debian",
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1", "0 objects of kind OpenStackCluster, should be one"),
        ("- 1", "0 objects of kind OpenStackCluster"),
        (f"{ALPHA}\n---\n{ALPHA}", "2 objects of kind OpenStackCluster: old, old, should be one"),
    ],
)
def test_what_is_no_cluster_is_one_line(text: str, line: str) -> None:
    with pytest.raises(UsageError) as refused:
        from_capi(read(text))
    assert str(refused.value).startswith(line)


CLUSTER = "{apiVersion: cluster.x-k8s.io/v1beta1, kind: Cluster, spec: {clusterNetwork: {pods: {cidrBlocks: %s}}}}"
PLANE = "{apiVersion: controlplane.cluster.x-k8s.io/v1beta1, kind: KubeadmControlPlane, spec: {%s}}"
HEAD = "apiVersion: infrastructure.cluster.x-k8s.io/v1beta1, kind: OpenStackCluster"


@pytest.mark.parametrize(
    ("documents", "line"),
    [
        (["spec: {apiServerLoadBalancer: {allowedCIDRs: 5}}"], "OpenStackCluster: spec.apiServerLoadBalancer.allowedCIDRs: 5"),
        (["spec: {dnsNameservers: 9.9.9.9}"], "OpenStackCluster: spec.dnsNameservers: '9.9.9.9', should be a list"),
        (["spec: {controlPlaneAvailabilityZones: true}"], "OpenStackCluster: spec.controlPlaneAvailabilityZones: True"),
        (["spec: {cloudName: [1]}"], "OpenStackCluster: spec.cloudName: a list, should be a single value"),
        (["metadata: {name: [a]}"], "OpenStackCluster: metadata.name: a list, should be a single value"),
        (["metadata: {name: a}", CLUSTER % "5"], "Cluster: spec.clusterNetwork.pods.cidrBlocks: 5, should be a list"),
        (["metadata: {name: a}", CLUSTER % "[[1]]"], "Cluster: spec.clusterNetwork.pods.cidrBlocks: a list of others"),
        (["metadata: {name: a}", PLANE % "version: [1]"], "KubeadmControlPlane: spec.version: a list"),
        (["metadata: {name: a}", PLANE % "replicas: [1]"], "KubeadmControlPlane: spec.replicas: a list"),
        (["metadata: {name: a}", "{kind: List, items: 5}"], "List: items: 5, should be a list"),
        (["metadata: {name: a}", "{kind: List, items: {a: b}}"], "List: items: {'a': 'b'}, should be a list"),
        (["metadata: {name: a}", "{apiVersion: cluster.x-k8s.io/v1, kind: [a]}"], "object: kind: a list"),
    ],
)
def test_a_field_of_another_type_is_one_line(documents: list[str], line: str) -> None:
    first, *others = documents
    with pytest.raises(UsageError) as refused:
        from_capi(read("\n---\n".join([f"{{{HEAD}, {first}}}", *others])))
    assert str(refused.value).startswith(line)


@pytest.mark.parametrize("metadata", ["[a]", "foo", "5"])
def test_metadata_of_another_type_have_no_name(metadata: str) -> None:
    found = from_capi(read(f"{{{HEAD}, metadata: {metadata}, spec: foo}}"))
    assert found.spec["metadata"] == {"name": ""}
    assert found.left == ("OpenStackCluster : spec",)


def test_the_command_prints_a_spec_that_can_be_read_and_tells_what_is_left(tmp_path: Path) -> None:
    file = tmp_path / "capi.yaml"
    file.write_text(BETA)
    program = [sys.executable, "-c", "from moyai.cli.main import main; main()", "spec", "from-capi", str(file)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert validate(next(iter(read(done.stdout))), source="spec").spec.control_plane.replicas == 3
    assert len(done.stderr.splitlines()) == 6
    assert all(line.startswith("no counterpart: ") for line in done.stderr.splitlines())


def test_networks_that_exist_are_named_by_id_or_name() -> None:
    text = """
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: OpenStackCluster
metadata: {name: shop}
spec:
  identityRef: {name: shop-clouds, cloudName: corp}
  network: {filter: {name: floor}}
  subnets: [{id: 8c0b}]
  router: {filter: {name: edge, tags: [prod]}}
  disableExternalNetwork: true
  disableAPIServerFloatingIP: true
"""
    made = from_capi(read(text))
    assert made.spec["spec"]["network"] == {
        "disableExternalNetwork": True,
        "existing": {"network": "floor", "subnet": "8c0b", "router": "edge"},
    }
    assert made.left == ("OpenStackCluster shop: spec.router.filter.tags",)
    validate(made.spec, source="cluster.yaml")

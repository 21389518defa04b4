"""gophercloud's acceptance tests against a local cloud: the pinned programs, what they are told of the cloud, their results.

They run as upstream's CI runs them: as administrator, in the project ``admin``. Tests that refuse an administrator run a second
time as the ordinary user. What they are given (network, router, image) lives as long as the `Site`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openstack

from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.toolchain.toolchain import Toolchain
from tests.peers.gotest import Result, read

COMPONENT = "gophercloud"
#: Octavia 15, Nova 30, …: what the local cloud is made of. Tests leave out what a release does not have.
_BRANCH = "stable/2024.2"
_FLAVORS = ("m1.tiny", "m1.small")
_NETWORK, _PUBLIC, _CIDR = "private", "public", "10.77.0.0/24"
#: One program; a test that hangs is cut off with it. Three tests of backups wait five minutes each, for nothing.
_LIMIT_MINUTES = 45
_NOT_FOR_ADMIN = "must be a non-admin to run this test"


def package(file: str) -> str:
    """The path below ``acceptance/openstack`` of a program that is called ``file`` in the pins."""
    return file.replace(".", "/")


def programs(reporter: Reporter) -> dict[str, Path]:
    """Package → program; built where they are missing."""
    component = Toolchain(default_paths(), reporter).ensure([COMPONENT])[COMPONENT]
    return {package(file): path for file, path in component.files.items()}


class Site:
    """The network of the servers that tests boot, with a way out. ``cloud``: a running local cloud with the node image."""

    def __init__(self, cloud: str) -> None:
        self._cloud = cloud
        self._admin: Any = openstack.connect(cloud=f"{cloud}-admin")
        self._undo = ExitStack()
        self._ids: dict[str, str] = {}

    def __enter__(self) -> Site:
        net, compute = self._admin.network, self._admin.compute
        with ExitStack() as undo:
            network = net.create_network(name=_NETWORK)
            undo.callback(net.delete_network, network)
            subnet = net.create_subnet(name=_NETWORK, network_id=network.id, ip_version=4, cidr=_CIDR)
            public = net.find_network(_PUBLIC, ignore_missing=False)
            router = net.create_router(name=_NETWORK, external_gateway_info={"network_id": public.id})
            undo.callback(net.delete_router, router)
            net.add_interface_to_router(router, subnet_id=subnet.id)
            undo.callback(net.remove_interface_from_router, router, subnet_id=subnet.id)
            small, large = (compute.find_flavor(name, ignore_missing=False).id for name in _FLAVORS)
            image = next(one for one in self._admin.image.images() if one.name.startswith("moyai-node-"))
            self._ids = {
                "OS_NETWORK_NAME": _NETWORK,
                "OS_NETWORK_ID": network.id,
                "OS_SUBNET_ID": subnet.id,
                "OS_POOL_NAME": _PUBLIC,
                "OS_EXTGW_ID": public.id,
                "OS_FLAVOR_ID": small,
                "OS_FLAVOR_ID_RESIZE": large,
                "OS_IMAGE_ID": image.id,
            }
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def environment(self, *, admin: bool) -> dict[str, str]:
        """All that a test program is told."""
        entry = f"{self._cloud}-admin" if admin else self._cloud
        found: Any = openstack.connect(cloud=entry)
        auth = found.config.config["auth"]
        return {
            "PATH": os.defpath,
            "HOME": tempfile.gettempdir(),
            "OS_AUTH_URL": auth["auth_url"],
            "OS_USERNAME": auth["username"],
            "OS_PASSWORD": auth["password"],
            "OS_PROJECT_NAME": auth["project_name"],
            "OS_DOMAIN_ID": auth["project_domain_id"],
            "OS_REGION_NAME": str(found.config.config["region_name"]),
            "OS_IDENTITY_API_VERSION": "3",
            "OS_BRANCH": _BRANCH,
            **self._ids,
        }


def run(
    site: Site, program: Path, *, package: str, log: Path, only: Sequence[str] = (), say: Callable[[str], None] = lambda _: None
) -> list[Result]:
    """Run one program, twice if some of its tests are for an ordinary user. ``log``: a folder for what it prints.

    ``only``: names of tests (all).
    """
    listed = subprocess.run([str(program), "-test.list=.*"], capture_output=True, text=True, check=True).stdout.split()
    wanted = [name for name in listed if not only or name in only]
    results = _once(site.environment(admin=True), program, package=package, names=wanted, log=log / "admin")
    again = [one.test.split()[1] for one in results if one.said == _NOT_FOR_ADMIN]
    if again:
        say(f"{package}: {len(again)} as an ordinary user")
        user = _once(site.environment(admin=False), program, package=package, names=again, log=log / "user")
        instead = {one.test: one for one in user}
        results = [instead.get(one.test, one) for one in results]
    return results


def _once(environment: Mapping[str, str], program: Path, *, package: str, names: Sequence[str], log: Path) -> list[Result]:
    log.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [str(program), "-test.v", f"-test.timeout={_LIMIT_MINUTES}m", f"-test.run=^({'|'.join(names)})$"],
            cwd=folder,
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    (log / f"{package.replace('/', '.')}.log").write_text(done.stdout)
    return read(done.stdout, package=package, listed=names)

"""OpenStack's adapter held to the contract, on the local cloud or whichever ``MOYAI_TEST_CLOUD`` names, and what is its own."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Instance, Route, Server
from moyai.cloud.openstack import ApplicationCredential, OpenStackCloud, Way, connect
from moyai.cloud.openstack.guest import NOTES, disk_links, find
from moyai.cloud.openstack.service_types import CAPABILITIES, EXTENSIONS
from moyai.cloud.openstack.session import CloudSession
from moyai.core.clock import SystemClock
from moyai.core.errors import UsageError
from tests.contract import suite
from tests.contract.site import Runner, Site, building


@pytest.fixture(scope="module")
def openstack(cloud_name: str) -> OpenStackCloud:
    return connect(cloud_name)


class WithoutExtension:
    """A way to the same cloud that hides one of Neutron's extensions; all else is keystoneauth's session."""

    def __init__(self, session: Any, hidden: str) -> None:
        self._session, self._hidden = session, hidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def request(self, url: str, method: str, **request: Any) -> Any:
        answer = self._session.request(url, method, **request)
        if url.endswith("/extensions"):
            listed = [one for one in answer.json()["extensions"] if one["alias"] != self._hidden]
            vars(answer)["_content"] = json.dumps({"extensions": listed}).encode()
        return answer


def lacking(openstack: OpenStackCloud, capability: Capability) -> OpenStackCloud:
    """The same cloud for a login that finds no address of the capability's service in the catalog (its interface is one that no
    service has), or no extension of that name in Neutron."""
    own, hidden = openstack.session, EXTENSIONS.get(capability)
    service = next((one for one, stands in CAPABILITIES.items() if stands is capability), None)
    assert service or hidden
    return OpenStackCloud(
        CloudSession(
            name=own.name,
            keystone=cast("Any", WithoutExtension(own.keystone, hidden)) if hidden else own.keystone,
            region=own.region,
            interface=lambda asked: "none" if asked == service else own.interface(asked),
            override=lambda asked: None if asked == service else own.override(asked),
        )
    )


#: The machine writes to its console, every two seconds, the files that ``guest`` reads and the links to its disks.
REPORT = f"""#!/bin/sh
report() {{
  for file in {" ".join(map(str, NOTES))}; do
    [ -r $file ] && echo "moyai-file $file $(base64 -w0 $file) end"
  done
  echo "moyai-disks $(ls /dev/disk/by-id 2>/dev/null | tr '\\n' ' ')end"
}}
(while sleep 2; do report >/dev/console; done) </dev/null >/dev/null 2>&1 &
"""


@dataclass(frozen=True)
class MachineByConsole:
    """Implements ``tests.contract.site.Machine``, and the adapter's ``Guest`` with what the machine reports."""

    openstack: OpenStackCloud
    server: Server

    def guest(self) -> MachineByConsole:
        return self

    def instance(self) -> Instance | None:
        reported = dict(re.findall(r"moyai-file (\S+) (\S+) end", self._console()))
        with TemporaryDirectory() as folder:
            files = [Path(folder) / str(number) for number, note in enumerate(NOTES) if str(note) in reported]
            texts = [reported[str(note)] for note in NOTES if str(note) in reported]
            try:
                for file, text in zip(files, texts, strict=True):
                    file.write_bytes(base64.b64decode(text, validate=True))
            except binascii.Error:
                return None  # another program wrote to the console in between
            return find(files, _no_service)

    def disk_links(self, volume_id: str, device: str = "") -> tuple[str, ...]:
        return disk_links(volume_id, device)

    def has(self, paths: Sequence[str]) -> bool:
        reports: list[str] = re.findall(r"moyai-disks (.*?)end", self._console())
        assert reports, "the machine reports"
        return any(Path(path).name in reports[-1].split() for path in paths)

    def _console(self) -> str:
        return self.openstack.machines.console_log(self.server.id)


def _no_service() -> str:
    raise OSError("the metadata service is not asked from here")


@pytest.fixture(scope="module")
def site(openstack: OpenStackCloud) -> Generator[Site]:
    def log_in(credential_id: str, secret: str) -> OpenStackCloud:
        auth_url = openstack.account.login_url()
        assert auth_url
        way = Way(region=openstack.account.region())
        return connect(credential=ApplicationCredential(auth_url, credential_id, secret), way=way)

    def lack(capability: Capability) -> OpenStackCloud:
        return lacking(openstack, capability)

    def enter(server: Server) -> MachineByConsole:
        return MachineByConsole(openstack, server)

    with building(openstack, Runner(SystemClock(), log_in, lack, enter, user_data=REPORT)) as made:
        yield made


globals().update(suite.for_runner(__name__))


def test_a_service_that_the_catalog_lacks_has_no_address(openstack: OpenStackCloud) -> None:
    assert openstack.session.catalog_url("no-such-service") is None


def test_without_atomic_routes_none_is_lost_either(
    openstack: OpenStackCloud, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def has_not(extension: str) -> bool:
        return False

    routing = openstack.pod_routing
    monkeypatch.setattr(routing, "_has", has_not)
    routes = [Route(f"10.245.{number}.0/24", f"10.77.0.{20 + number}") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        added = [pool.submit(routing.add_routes, site.router.id, [route]) for route in routes]
    assert all(one.result() for one in added)
    assert set(openstack.routers.router(site.router.id).routes) == set(routes)
    assert routing.remove_routes(site.router.id, routes).routes == ()


def test_an_unknown_cloud_is_refused_with_those_there_are(cloud_name: str) -> None:
    with pytest.raises(UsageError, match=cloud_name):
        connect("no-such-cloud")

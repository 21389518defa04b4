"""The front's HTTPS server with the vendor's SDK as it is: its signer, its endpoint, its certificate check, its retries."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from moyai.core.clock import SystemClock
from moyai.localcloud import nifcloud_access, secrets
from moyai.localcloud.env import OpenStackEnv
from moyai.localcloud.layout import NIFCLOUD_HOST, CloudPaths, LocalCloudConfig
from moyai.localcloud.services import nifcloud, services
from moyai.localcloud.services.rendering import NifcloudAccess, ServiceContext
from moyai.nifcloud_front.app import FrontSettings
from moyai.nifcloud_front.http_server import FrontServer
from moyai.nifcloud_front.pace import FaultOrder
from tests.fakes.clock import FakeClock
from tests.fakes.nifcloud_front import KEY, SECRET, TestFront
from tests.nifcloud_sdk import client

botocore: Any = import_module("botocore.exceptions")
CONFIG = LocalCloudConfig(management_cidr="10.1.0.0/24", external_cidr="10.2.0.0/24")
ZONED = replace(CONFIG, zones=("east", "west", "south"))


class _Served:
    def __init__(self, front: TestFront, *, port: int, ca: Path) -> None:
        self.front, self.port, self.ca = front, port, ca

    def client(self, key: str = KEY, secret: str = SECRET) -> Any:
        return client(f"https://localhost:{self.port}", key=key, secret=secret, verify=str(self.ca))


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[_Served]:
    # the SDK's host must be in the certificate
    monkeypatch.setattr(nifcloud_access, "NIFCLOUD_HOST", "localhost")
    paths = CloudPaths(tmp_path / "cloud")
    paths.root.mkdir()
    nifcloud_access.ensure(CONFIG, paths, clock=SystemClock())
    front = TestFront(tmp_path, scale=0)
    # signatures are of now
    front.clock = _at_now()
    front.reopen()
    certificate = paths.nifcloud / "server.crt", paths.nifcloud / "server.key"
    server = FrontServer(("127.0.0.1", 0), front.front, certificate=certificate)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield _Served(front, port=server.server_address[1], ca=paths.nifcloud / "ca.crt")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _at_now() -> FakeClock:
    return FakeClock(SystemClock().now())


def test_the_sdk_makes_a_server_over_tls(served: _Served) -> None:
    sdk = served.client()
    image = sdk.describe_images(ImageName=["ubuntu"])["ImagesSet"][0]["ImageId"]
    script = {"Content": "IyEvYmluL3NoCg==", "Encoding": "base64"}
    made = sdk.run_instances(ImageId=image, InstanceId="web1", UserData=script)
    assert made["InstancesSet"][0]["InstanceState"]["Name"] == "pending"
    served.front.settle()
    found = sdk.describe_instances(InstanceId=["web1"])
    assert found["ReservationSet"][0]["InstancesSet"][0]["InstanceState"]["Name"] == "running"


def test_an_error_has_code_and_request_id(served: _Served) -> None:
    with pytest.raises(botocore.ClientError) as refused:
        served.client().describe_instances(InstanceId=["nobody"])
    assert refused.value.response["Error"]["Code"] == "Client.InvalidParameterNotFound.Instance"
    assert len(refused.value.response["RequestID"]) == 32


@pytest.mark.parametrize(
    ("key", "secret", "code"),
    [("STRANGER", SECRET, "Client.AuthFailurePermission.AccessKey"), (KEY, "wrong", "Client.AuthFailure")],
)
def test_wrong_keys_are_refused(served: _Served, key: str, secret: str, code: str) -> None:
    with pytest.raises(botocore.ClientError) as refused:
        served.client(key, secret).describe_images()
    assert refused.value.response["Error"]["Code"] == code


def test_a_lost_answer_is_a_closed_connection_and_the_effect_is_there(served: _Served) -> None:
    served.front.order(FaultOrder("AllocateAddress", lost=True, effect="after"))
    sdk = served.client()
    with pytest.raises((botocore.ConnectionClosedError, botocore.EndpointConnectionError)):
        sdk.allocate_address()
    assert len(sdk.describe_addresses()["AddressesSet"]) == 1


def test_another_path_is_an_error_of_the_api(served: _Served) -> None:
    sdk = client(f"https://localhost:{served.port}/elsewhere", key=KEY, secret=SECRET, verify=str(served.ca))
    with pytest.raises(botocore.ClientError) as refused:
        sdk.describe_images()
    assert refused.value.response["Error"]["Code"] == "Client.InvalidParameter.Value.Path"


def test_many_clients_at_once_get_different_addresses(served: _Served) -> None:
    sdk = served.client()

    def allocate(_: int) -> str:
        return sdk.allocate_address()["PublicIp"]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(allocate, range(16)))
    assert len(set(found)) == 16
    assert {one["PublicIp"] for one in sdk.describe_addresses()["AddressesSet"]} == set(found)


# ---- the files of the local cloud


def test_keys_are_private_and_stay(tmp_path: Path) -> None:
    paths = CloudPaths(tmp_path / "cloud")
    paths.root.mkdir()
    assert nifcloud_access.load(paths) is None
    made = nifcloud_access.ensure(CONFIG, paths, clock=SystemClock())
    assert nifcloud_access.ensure(CONFIG, paths, clock=SystemClock()) == made
    assert made.secret not in repr(made)
    clouds = tmp_path / "openstack" / "clouds.yaml"
    nifcloud_access.put(clouds, CONFIG, paths=paths, access=made)
    file = nifcloud_access.user_file(clouds, CONFIG)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f"NIFCLOUD_ACCESS_KEY_ID={made.key}\n" in file.read_text()
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in paths.nifcloud.iterdir())
    other = LocalCloudConfig(management_cidr="10.3.0.0/24", external_cidr="10.4.0.0/24")
    nifcloud_access.remove(clouds, other)
    assert file.exists()
    nifcloud_access.remove(clouds, CONFIG)
    assert not file.exists()


def test_the_supervisor_starts_the_front_where_the_cloud_has_an_access_key() -> None:
    plain = ServiceContext(
        ZONED, CloudPaths(Path("/state/test")), OpenStackEnv(Path("/env"), "key"), secrets.generate(), "moyai-test"
    )
    assert (nifcloud.files(plain), nifcloud.services(plain)) == ({}, [])
    context = replace(plain, nifcloud=NifcloudAccess("KEY", "hidden"), own_python="/opt/python", own_code="/opt/moyai")
    (service,) = nifcloud.services(context)
    assert service.argv == ("/opt/python", "-m", "moyai.nifcloud_front.app", context.conf("nifcloud.json"))
    assert service.port == 443
    assert "hidden" not in str(service)
    assert set(service.after) <= {one.name for one in services(context)}
    files = nifcloud.files(context)
    settings = FrontSettings(**json.loads(files["nifcloud.json"]))
    assert dict(settings.zones) == {"east-11": "east", "east-12": "west", "east-13": "south"}
    assert settings.keys == {"KEY": "hidden"}
    assert NIFCLOUD_HOST.startswith(settings.region)

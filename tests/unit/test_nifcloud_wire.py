"""How the NIFCLOUD adapter's calls reach the wire, what is repeated, and what errors mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.nifcloud.access_keys import find_access_key
from moyai.cloud.nifcloud.error_codes import (
    LostReply,
    NameTaken,
    NoSuchObject,
    StillBusy,
    StillUsed,
    error_from_code,
)
from moyai.cloud.nifcloud.instance_types import FLAVORS
from moyai.cloud.nifcloud.regions import REGIONS
from moyai.cloud.nifcloud.sdk import ApiPlace
from moyai.cloud.nifcloud.wire import Wire
from moyai.core.errors import CredentialsRefused, MoyaiError, Retriable, Terminal, UsageError
from tests.fakes.nifcloud_wire import NifcloudWire


@pytest.fixture
def wire() -> NifcloudWire:
    return NifcloudWire()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("Client.InvalidParameterNotFound.Instance", NoSuchObject),
        ("Client.InvalidParameterDuplicate.SecurityGroup", NameTaken),
        ("Client.Inoperable.LoadBalancer.HavingRegisteredInstance", NameTaken),
        ("Server.Inoperable.Volume.AlreadyAttached", NameTaken),
        ("Client.Inoperable.SecurityGroup.InUse", StillUsed),
        ("Server.ResourceIncorrectState.Network.Processing", StillBusy),
        ("Server.InternalError", Retriable),
        ("Server.ProcessingFailure.Instance.Stop", Retriable),
        ("Client.AuthFailurePermission.AccessKey", CredentialsRefused),
        ("Client.InvalidParameterLength.InstanceId", Terminal),
        ("502", LostReply),
        ("", LostReply),
    ],
)
def test_a_code_says_what_an_error_means(code: str, kind: type[MoyaiError]) -> None:
    error = error_from_code(code, "words\nof two lines", operation="RunInstances", request_id="r")
    assert type(error) is kind
    assert "\n" not in str(error)
    assert "r" in str(error)


def test_the_object_that_is_missing_is_named() -> None:
    error = error_from_code("Client.InvalidParameterNotFound.Volume", "", operation="AttachVolume")
    assert isinstance(error, NoSuchObject)
    assert error.what == "Volume"


def test_a_refusal_is_known_by_its_code_whatever_the_status_is(wire: NifcloudWire) -> None:
    wire.refuse("DescribeInstances", "Client.InvalidParameterNotFound.Instance")
    with pytest.raises(NoSuchObject) as caught:
        wire.cloud().machines.servers()
    assert caught.value.request_id == "request-1"
    assert wire.count["DescribeInstances"] == 1


def test_a_read_is_repeated_and_a_change_is_not(wire: NifcloudWire) -> None:
    ours = Wire(wire.sdk(), wire.clock)
    wire.lose("DescribeInstances", times=2)
    assert ours.read("DescribeInstances").get("ReservationSet", []) == []
    assert wire.count["DescribeInstances"] == 3
    wire.lose("AllocateAddress")
    with pytest.raises(LostReply):
        ours.change("AllocateAddress", {})
    assert wire.count["AllocateAddress"] == 1


def test_a_busy_object_is_asked_again_for_a_while(wire: NifcloudWire) -> None:
    ours, busy = Wire(wire.sdk(), wire.clock), "Server.ResourceIncorrectState.IpAddress.Processing"
    wire.refuse("AllocateAddress", busy, times=4)
    assert ours.change("AllocateAddress", {})["PublicIp"]
    wire.refuse("AllocateAddress", busy, times=1000)
    with pytest.raises(StillBusy):
        ours.change("AllocateAddress", {}, busy_seconds=60)
    assert wire.count["AllocateAddress"] < 40


def test_calls_are_signed_and_the_secret_is_not_sent(wire: NifcloudWire) -> None:
    wire.cloud().machines.servers()
    (sent,) = wire.sent("DescribeInstances")
    assert (sent["AccessKeyId"], sent["SignatureVersion"]) == ("key-of-tests", "2")
    assert sent["Signature"]
    assert "secret-of-tests" not in json.dumps(sent)
    assert "AWSAccessKeyId" not in sent


def test_an_unknown_region_is_refused_before_an_address_is_made_of_it() -> None:
    with pytest.raises(UsageError, match="nowhere-1"):
        _ = ApiPlace("nowhere-1").url
    assert ApiPlace("nowhere-1", endpoint_url="https://127.0.0.1:8443/api/").url == "https://127.0.0.1:8443"
    assert all(ApiPlace(region).url.endswith(".nifcloud.com") for region in REGIONS)


@pytest.mark.parametrize(
    ("environ", "file", "wrong"),
    [
        ({"NIFCLOUD_ACCESS_KEY_ID": "a"}, "", "NIFCLOUD_SECRET_ACCESS_KEY is not"),
        ({}, "", "no access key"),
        ({}, "a secret that is no section", "no credentials file"),
        ({}, "[default]\nnifcloud_access_key_id = a\n", "no whole access key"),
    ],
)
def test_a_faulty_key_is_one_line_without_its_secret(environ: dict[str, str], file: str, wrong: str, tmp_path: Path) -> None:
    _write(tmp_path, file)
    with pytest.raises(UsageError, match=wrong) as caught:
        find_access_key(environ, tmp_path)
    assert "a secret that is no section" not in str(caught.value)


def test_a_key_comes_from_the_environment_or_from_the_sdks_file(tmp_path: Path) -> None:
    _write(tmp_path, "[default]\nnifcloud_access_key_id = file\nnifcloud_secret_access_key = s%t\n")
    assert find_access_key({}, tmp_path).id == "file"
    own = find_access_key({"NIFCLOUD_ACCESS_KEY_ID": "e", "NIFCLOUD_SECRET_ACCESS_KEY": "hidden"}, tmp_path)
    assert own.id == "e"
    assert "hidden" not in repr(own)


def _write(home: Path, text: str) -> None:
    if text:
        (home / ".nifcloud").mkdir()
        (home / ".nifcloud" / "credentials").write_text(text)


def test_the_table_of_instance_types_is_that_of_the_apis_model(wire: NifcloudWire) -> None:
    model: Any = wire.sdk().client.meta.service_model
    named = model.operation_model("RunInstances").input_shape.members["InstanceType"].enum
    assert {one.id for one in FLAVORS} == set(named)
    sizes = {one.id: (one.vcpus, one.memory_mb) for one in FLAVORS}
    assert (sizes["mini"], sizes["e-medium4"], sizes["h2-large"]) == ((1, 512), (2, 4096), (4, 4096))

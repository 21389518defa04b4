"""The front's wire against the vendor's SDK: all operations of the service model in both directions, right and wrong calls."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any
from urllib.parse import urlencode

import pytest

from moyai.nifcloud_front.wire import answer, request, signature
from moyai.nifcloud_front.wire.refusal import ApiRefusal, not_built, not_found
from moyai.nifcloud_front.wire.service_model import load_model
from tests.nifcloud_sdk import NifcloudSdk, required_paths, sample

SDK = NifcloudSdk()
MODEL = load_model()
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
#: The SDK never sends this parameter.
NEVER_SENT = ("DescribeLoadBalancers", "Owner")

#: The model gives their answers no id.
WITHOUT_ID = {"DescribeUploads", "ImportInstance"}


def _read(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return dict(request.parse(MODEL, request.parameters(SDK.body(name, arguments))).arguments)


def test_the_model_is_the_sdks() -> None:
    assert set(MODEL.operations) == set(SDK.operations())
    assert len(MODEL.operations) == 239


@pytest.mark.parametrize("seed", [1, 6, 11])
@pytest.mark.parametrize("name", SDK.operations())
def test_what_the_sdk_sends_is_read_as_it_was_meant(name: str, seed: int) -> None:
    arguments = sample(SDK.model.operation_model(name).input_shape, seed=seed)
    sent = {key: value for key, value in arguments.items() if (name, key) != NEVER_SENT}
    assert _read(name, arguments) == sent


@pytest.mark.parametrize("name", SDK.operations())
def test_a_call_of_required_parameters_alone_is_enough(name: str) -> None:
    arguments = sample(SDK.model.operation_model(name).input_shape, seed=2, only_required=True)
    assert _read(name, arguments) == arguments


@pytest.mark.parametrize("seed", [1, 5])
@pytest.mark.parametrize("name", SDK.operations())
def test_what_the_front_answers_is_understood_as_it_was_meant(name: str, seed: int) -> None:
    values = sample(SDK.model.operation_model(name).output_shape, seed=seed)
    operation = MODEL.operations[name]
    body = answer.answer(MODEL, operation, values=values, request_id="r-1")
    found = SDK.understood(name, body=body)
    found.pop("ResponseMetadata", None)
    values.pop("ResponseMetadata", None)
    if "RequestId" in values:
        values["RequestId"] = "r-1"
    assert found == values


@pytest.mark.parametrize("name", sorted(set(SDK.operations()) - WITHOUT_ID))
def test_the_request_id_arrives_in_both_families(name: str) -> None:
    found = SDK.understood(name, body=answer.answer(MODEL, MODEL.operations[name], values={}, request_id="r-7"))
    assert "r-7" in (found.get("RequestId"), found["ResponseMetadata"].get("RequestId"))


@pytest.mark.parametrize("name", SDK.operations())
def test_a_missing_parameter_is_named(name: str) -> None:
    shape = SDK.model.operation_model(name).input_shape
    whole = sample(shape, seed=3)
    for path in required_paths(shape):
        arguments = copy.deepcopy(whole)
        inside: Any = arguments
        for key in path[:-1]:
            inside = inside[int(key)] if key.isdecimal() else inside[key]
        del inside[path[-1]]
        with pytest.raises(ApiRefusal, match=r"Client\.InvalidParameter\.Required\.") as refused:
            _read(name, arguments)
        # a structure without any member does not arrive at all: then what holds it is missing
        named = refused.value.code.rpartition(".")[2]
        assert named.isdecimal() or any(named in one for one in path)


@pytest.mark.parametrize("name", SDK.operations())
def test_a_parameter_that_the_operation_lacks_is_named(name: str) -> None:
    form = SDK.form(name, sample(SDK.model.operation_model(name).input_shape, seed=4))
    with pytest.raises(ApiRefusal, match=r"Client\.InvalidParameter\.Unknown\.Colour\b"):
        request.parse(MODEL, form | {"Colour": "red"})


@pytest.mark.parametrize("name", SDK.operations())
def test_values_of_another_type_or_outside_an_enumeration_are_named(name: str) -> None:
    shape = SDK.model.operation_model(name).input_shape
    form = SDK.form(name, sample(shape, seed=5))
    read = request.parse(MODEL, form)
    assert read.operation.name == name
    for key, member in shape.members.items():
        wire = member.serialization.get("name", key)
        if (name, key) == NEVER_SENT or wire not in form:
            continue
        if member.type_name in ("integer", "boolean", "long"):
            with pytest.raises(ApiRefusal, match=rf"Client\.InvalidParameter\.Format\.{wire}:"):
                request.parse(MODEL, form | {wire: "many"})
        elif getattr(member, "enum", None):
            with pytest.raises(ApiRefusal, match=rf"Client\.InvalidParameter\.Value\.{wire}:"):
                request.parse(MODEL, form | {wire: "nothing of the kind"})


@pytest.mark.parametrize("name", ["StartInstances", "StopInstances", "RebootInstances", "TerminateInstances"])
def test_a_change_of_no_server_is_none_of_all(name: str) -> None:
    with pytest.raises(ApiRefusal, match=r"InstanceId is required"):
        request.parse(MODEL, {"Action": name, "InstanceId": ""})


@pytest.mark.parametrize("name", ["RegisterInstancesWithSecurityGroup", "DeregisterInstancesFromSecurityGroup"])
def test_a_group_takes_no_server_for_all(name: str) -> None:
    with pytest.raises(ApiRefusal, match=r"InstanceId is required"):
        request.parse(MODEL, {"Action": name, "GroupName": "x", "InstanceId": ""})


def test_numbers_of_a_list_have_no_gap() -> None:
    form = {"Action": "DescribeInstances", "InstanceId.1": "a", "InstanceId.3": "c"}
    with pytest.raises(ApiRefusal, match=r"Client\.InvalidParameter\.Required\.InstanceId\.2"):
        request.parse(MODEL, form)


def test_balancers_are_asked_for_by_name_alone_too() -> None:
    # the form of other clients; the SDK demands the two ports
    read = request.parse(MODEL, {"Action": "DescribeLoadBalancers", "LoadBalancerNames.member.1": "web", "Owner": "self"})
    assert read.arguments == {"LoadBalancerNames": [{"LoadBalancerName": "web"}], "Owner": "self"}


@pytest.mark.parametrize(
    "body",
    [
        b"Action",
        b"\xff=1",
        b"A=%FF",
        b"a=1&a=2",
        b"a=%00",
        b"a%0b=1",
        b"x" * (request.MOST_BYTES + 1),
        # each list within a list goes through all of them
        b"&".join(b"a%d=" % number for number in range(request.MOST_PARAMETERS + 1)),
    ],
)
def test_a_body_that_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(ApiRefusal, match=r"Client\.InvalidParameter\.Format\."):
        request.parameters(body)


def test_unknown_operations_and_versions_are_refused() -> None:
    with pytest.raises(ApiRefusal, match="no operation 'FlyToTheMoon'"):
        request.parse(MODEL, {"Action": "FlyToTheMoon"})
    with pytest.raises(ApiRefusal, match="Version"):
        request.parse(MODEL, {"Action": "DescribeImages", "Version": "2.0"})


@pytest.mark.parametrize("refusal", [not_found("Instance", "web<1>"), not_built("CopyInstances")])
def test_an_error_arrives_with_code_message_and_request_id(refusal: ApiRefusal) -> None:
    found = SDK.understood("DescribeInstances", body=answer.error(refusal, "r-9"), status=400)
    assert found["Error"] == {"Code": refusal.code, "Message": refusal.message}
    assert found["RequestID"] == "r-9"


# ---- who asks

TARGET = ("POST", "front.test:8443", "/api/")


def _signed(secret: str = "secret", *, now: datetime = NOW, **changed: str) -> dict[str, str]:
    """Signed by the SDK's own signer."""
    auth: Any = import_module("nifcloud.auth")
    awsrequest: Any = import_module("botocore.awsrequest")
    credentials: Any = import_module("botocore.credentials").Credentials("key", secret)
    form = {
        "Action": "DescribeImages",
        "ImageName.1": "a b*~é",
        "SignatureVersion": "2",
        "SignatureMethod": "HmacSHA256",
        "Timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    made = awsrequest.AWSRequest("POST", "https://front.test:8443/api/", data=dict(form))
    params = form | {"AccessKeyId": "key"}
    _, signed = auth.SigV2ComputingAuth(credentials).calc_signature(made, params)
    return params | {"Signature": signed} | changed


def _checked(given: dict[str, str]) -> str:
    # as it arrives: through the bytes of a form
    return signature.check(request.parameters(urlencode(given).encode()), target=TARGET, secrets={"key": "secret"}, now=NOW)


def test_what_the_sdk_signs_is_accepted() -> None:
    assert _checked(_signed()) == "key"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (_signed("another secret"), "Client.AuthFailure"),
        (_signed() | {"ImageName.1": "other"}, "Client.AuthFailure"),
        (_signed() | {"AccessKeyId": "stranger"}, "Client.AuthFailurePermission.AccessKey"),
        (_signed() | {"SignatureVersion": "4"}, "Client.InvalidParameter.Value.SignatureVersion"),
        (_signed() | {"SignatureMethod": "HmacMD5"}, "Client.InvalidParameter.Value.SignatureMethod"),
        (_signed() | {"Signature": ""}, "Client.InvalidParameter.Required.Signature"),
        (_signed(now=NOW + timedelta(minutes=16)), "Client.AuthFailure"),
        (_signed(now=NOW - timedelta(minutes=16)), "Client.AuthFailure"),
    ],
)
def test_what_is_not_the_accounts_is_refused(given: dict[str, str], code: str) -> None:
    with pytest.raises(ApiRefusal) as refused:
        _checked(given)
    assert refused.value.code == code
    assert "secret" not in refused.value.message

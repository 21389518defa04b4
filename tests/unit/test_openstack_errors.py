"""What the services answer when they refuse, as recorded, and what moyai makes of it."""

from __future__ import annotations

import json

import pytest

from moyai.cloud.openstack.errors import cloud_words, error_from_response, quota_names
from moyai.core.errors import (
    Conflict,
    CredentialsRefused,
    MoyaiError,
    NotFound,
    PermissionRefused,
    QuotaExceeded,
    Retriable,
    SizeRefused,
    Terminal,
    Unreachable,
)


def error_of(status: int, body: object, *, service: str = "Neutron") -> MoyaiError:
    text = body if isinstance(body, str) else json.dumps(body)
    return error_from_response(
        status=status, body=text, service=service, operation="create port web-1", object_id="id-1", request_id="req-1"
    )


NOVA_QUOTA = {
    "forbidden": {
        "code": 403,
        "message": "Quota exceeded for cores, ram: Requested 4, 8192, but already used 8, 16384 of 8, 16384 cores, ram",
    }
}
NEUTRON_QUOTA = {"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['port'].", "detail": ""}}
CINDER_QUOTA = {
    "overLimit": {
        "code": 413,
        "message": "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded for quota 'volumes'.",
    }
}
CINDER_SIZE = {
    "overLimit": {
        "code": 413,
        "message": "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota."
        " Requested 5000G, quota is 1000G and 0G has been consumed.",
    }
}
OCTAVIA_QUOTA = {"faultcode": "Client", "faultstring": "Quota has been met for resources: Load Balancer", "debuginfo": None}


@pytest.mark.parametrize(
    ("status", "body", "named"),
    [
        (403, NOVA_QUOTA, "cores, ram"),
        (409, NEUTRON_QUOTA, "port"),
        (413, CINDER_QUOTA, "volumes"),
        (413, CINDER_SIZE, "gigabytes"),
        (403, OCTAVIA_QUOTA, "Load Balancer"),
    ],
)
def test_an_exhausted_quota_is_terminal_and_named(status: int, body: object, named: str) -> None:
    error = error_of(status, body)
    assert type(error) is QuotaExceeded
    assert error.hint is not None
    assert named in error.hint


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Terminal),
        (401, CredentialsRefused),
        (403, PermissionRefused),
        (404, NotFound),
        (406, Terminal),
        (409, Conflict),
        (412, Conflict),
        (429, Retriable),
        (500, Retriable),
        (502, Unreachable),
        (503, Unreachable),
        (504, Unreachable),
    ],
)
def test_a_status_becomes_the_class_that_says_what_to_do(status: int, kind: type[MoyaiError]) -> None:
    assert type(error_of(status, {"error": {"message": "no"}})) is kind


def test_an_error_says_what_was_asked_of_what_and_the_request_id() -> None:
    error = error_of(409, {"NeutronError": {"type": "PortInUse", "message": "Port 7 is in\nuse.", "detail": ""}})
    assert str(error) == "Neutron: Port 7 is in use. (in create port web-1, of id-1, request req-1)"


def test_no_address_left_does_not_mend_by_waiting() -> None:
    body = {"NeutronError": {"type": "IpAddressGenerationFailure", "message": "No more IP addresses available on network n."}}
    assert type(error_of(409, body)) is Terminal


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"conflictingRequest": {"code": 409, "message": "Cannot 'stop'"}}, "Cannot 'stop'"),
        ({"error": {"code": 401, "message": "The request", "title": "Unauthorized"}}, "The request"),
        ({"errors": [{"title": "T", "detail": "D"}]}, "D"),
        ("<html><head><title>502</title></head><body><h1>Bad Gateway</h1></body></html>", "Bad Gateway"),
        ("", ""),
        ([1], "[1]"),
    ],
)
def test_the_words_of_every_service_are_found(body: object, words: str) -> None:
    assert cloud_words(body if isinstance(body, str) else json.dumps(body))[1] == words


def test_words_without_a_quota_name_none() -> None:
    assert quota_names("Policy doesn't allow this") == ""


@pytest.mark.parametrize(
    ("words", "least", "most"),
    [
        ("Specified volume size of '1' is less than the minimum required size of '8' for volume type 'fast'.", 8, None),
        ("Specified volume size of '9' is greater than the maximum allowable size of '4' for volume type 'fast'.", None, 4),
    ],
)
def test_a_size_that_a_volume_type_refuses_has_its_bound(words: str, least: int | None, most: int | None) -> None:
    error = error_of(400, {"badRequest": {"code": 400, "message": f"Invalid input received: {words}"}}, service="Cinder")
    assert isinstance(error, SizeRefused)
    assert (error.least_gb, error.most_gb) == (least, most)
    assert words in str(error)

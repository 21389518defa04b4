"""Key pairs, images, zones and regions."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import replace

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)

from moyai.nifcloud_front.calls.call import ApiCall, Values, check_name
from moyai.nifcloud_front.store.rows import ImageRow, InstanceRow, KeyRow, ZoneRow
from moyai.nifcloud_front.wire.refusal import inoperable, invalid, not_found

#: What DescribeRegions calls the region that clients call jp-east-1.
_OLD_NAMES = {"jp-east-1": "east-1", "jp-east-2": "east-2", "jp-east-3": "east-3", "jp-west-1": "west-1"}


def import_key_pair(call: ApiCall) -> Values:
    name = call.text("KeyName")
    check_name("KeyName", name, least=6, most=32)
    try:
        line = base64.b64decode(call.text("PublicKeyMaterial"), validate=True).decode()
        key = load_ssh_public_key(line.encode())
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        raise invalid("PublicKeyMaterial", "The key is not an OpenSSH line in base64.", kind="Format") from None
    if not isinstance(key, RSAPublicKey):
        raise invalid("PublicKeyMaterial", "The key is not an RSA key.")
    row = _keep(call, name, line=line)
    return {"KeyFingerprint": row.fingerprint, "KeyName": row.name}


def create_key_pair(call: ApiCall) -> Values:
    """The private key is in the answer alone, encrypted with the call's password."""
    name, password = call.text("KeyName"), call.text("Password")
    check_name("KeyName", name, least=6, most=32)
    if not password.isascii() or not 6 <= len(password) <= 32:
        raise invalid("Password", "The password does not have 6 to 32 characters of ASCII.")
    key = generate_private_key(65537, 2048)
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    row = _keep(call, name, line=line)
    material = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(password.encode()))
    return {
        "Description": row.description,
        "KeyFingerprint": row.fingerprint,
        "KeyMaterial": material.decode(),
        "KeyName": row.name,
    }


def _keep(call: ApiCall, name: str, *, line: str) -> KeyRow:
    description = call.description()
    call.free(KeyRow, "KeyPair", name=name)
    digest = hashlib.md5(base64.b64decode(line.split()[1]), usedforsecurity=False).hexdigest()
    row = call.tx.put(KeyRow(call.draw("key-"), name, ":".join(re.findall("..", digest)), line.strip(), description))
    call.tx.schedule(row, "create")
    return row


def describe_key_pairs(call: ApiCall) -> Values:
    instances = call.tx.all(InstanceRow)
    return {
        "KeySet": [
            {
                "Description": row.description,
                "InstancesSet": [
                    {"InstanceId": one.name, "RegionName": call.region} for one in instances if one.key == row.name
                ],
                "KeyFingerprint": row.fingerprint,
                "KeyName": row.name,
            }
            for row in call.listed(KeyRow, "KeyPair", parameter="KeyName")
        ]
    }


def delete_key_pair(call: ApiCall) -> Values:
    row = call.found(KeyRow, "KeyPair", name=call.text("KeyName"))
    # a server keeps the key that it was made with
    if any(one.key == row.name and one.state == "pending" for one in call.tx.all(InstanceRow)):
        raise inoperable("KeyPair.InUse", f"A server is being made with the key pair {row.name}.")
    call.tx.schedule(row, "delete")
    return {"Return": True}


def modify_key_pair(call: ApiCall) -> Values:
    row = call.found(KeyRow, "KeyPair", name=call.text("KeyName"))
    row = call.tx.put(replace(row, description=call.description("Value")))
    return {"Attribute": "description", "Return": True, "Value": row.description}


def describe_images(call: ApiCall) -> Values:
    ids, names = call.args.get("ImageId", []), call.args.get("ImageName", [])
    found = call.tx.all(ImageRow)
    for uid in ids:
        if call.tx.get(ImageRow, uid) is None:
            raise not_found("ImageId", uid)
    found = [row for row in found if (not ids or row.uid in ids) and (not names or row.name in names)]
    return {
        "ImagesSet": [
            {
                "Architecture": "x86_64",
                "Description": "",
                "ImageId": row.uid,
                "ImageOwnerId": "niftycloud",
                "ImageState": "available",
                "ImageType": "machine",
                "IsPublic": True,
                "Name": row.name,
                "Platform": "linux",
                "RootDeviceType": "disk",
            }
            for row in found
        ]
    }


def describe_zones(call: ApiCall) -> Values:
    first = call.tx.all(ZoneRow)[0].uid
    return {
        "AvailabilityZoneInfo": [
            {
                "IsDefault": row.uid == first,
                "MessageSet": "",
                "RegionName": _OLD_NAMES.get(call.region, call.region),
                "SecurityGroupSupported": True,
                "ZoneName": row.name,
                "ZoneState": "available",
            }
            for row in call.listed(ZoneRow, "AvailabilityZone", parameter="ZoneName")
        ]
    }


def describe_regions(call: ApiCall) -> Values:
    name = _OLD_NAMES.get(call.region, call.region)
    if any(one != name for one in call.args.get("RegionName", [])):
        raise not_found("RegionName", ", ".join(call.args["RegionName"]))
    endpoint = f"{call.region}.computing.api.nifcloud.com"
    return {"RegionInfo": [{"IsDefault": True, "MessageSet": [], "RegionEndpoint": endpoint, "RegionName": name}]}

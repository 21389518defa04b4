"""What a local cloud that speaks NIFCLOUD has beside its services: an authority, a certificate, one access key, and a file of
the user's that says how to get in.

Made once for a cloud, in its folder ``nifcloud``. That the folder is there means that the cloud speaks NIFCLOUD.
"""

from __future__ import annotations

import ipaddress
import json
import secrets
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moyai.core.clock import Clock
from moyai.core.files import write_private
from moyai.core.user_files import editing
from moyai.localcloud.layout import NIFCLOUD_HOST, CloudPaths, LocalCloudConfig
from moyai.localcloud.services.rendering import NifcloudAccess

_LIFE = timedelta(days=3650)
#: Certificates begin a while ago, because machines' clocks differ.
_LEEWAY = timedelta(minutes=10)


def load(paths: CloudPaths) -> NifcloudAccess | None:
    """None for a cloud that does not speak NIFCLOUD."""
    file = paths.nifcloud / "access.json"
    return NifcloudAccess(**json.loads(file.read_text())) if file.exists() else None


def ensure(config: LocalCloudConfig, paths: CloudPaths, *, clock: Clock) -> NifcloudAccess:
    """The authority, the certificate and the access key; the access key is written last."""
    if (found := load(paths)) is not None:
        return found
    paths.nifcloud.mkdir(mode=0o700, exist_ok=True)
    _certificates(config, paths, clock=clock)
    access = NifcloudAccess(key=secrets.token_hex(10).upper(), secret=secrets.token_hex(20))
    write_private(paths.nifcloud / "access.json", json.dumps(asdict(access)) + "\n")
    return access


def _certificates(config: LocalCloudConfig, paths: CloudPaths, *, clock: Clock) -> None:
    begin, end = clock.now() - _LEEWAY, clock.now() + _LIFE
    authority_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"moyai local cloud {config.name}")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = (
        x509.CertificateBuilder(authority_name, authority_name, authority_key.public_key(), x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(_usage(signs=True), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.DNSName(NIFCLOUD_HOST), x509.IPAddress(ipaddress.ip_address(config.address))]
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NIFCLOUD_HOST)])
    server = (
        x509.CertificateBuilder(authority_name, server_name, server_key.public_key(), x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(_usage(signs=False), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    write_private(paths.nifcloud / "server.key", _pem(server_key))
    write_private(paths.nifcloud / "server.crt", server.public_bytes(serialization.Encoding.PEM))
    write_private(paths.nifcloud / "ca.crt", authority.public_bytes(serialization.Encoding.PEM))


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def user_file(clouds_file: Path, config: LocalCloudConfig) -> Path:
    """Beside clouds.yaml."""
    return clouds_file.with_name(f"nifcloud-{config.name}.env")


def put(clouds_file: Path, config: LocalCloudConfig, *, paths: CloudPaths, access: NifcloudAccess) -> None:
    """Write the user's file, mode 0600: lines of the shell, by the names that the vendor's SDKs read."""
    lines = (
        f"NIFCLOUD_ACCESS_KEY_ID={access.key}",
        f"NIFCLOUD_SECRET_ACCESS_KEY={access.secret}",
        f"NIFCLOUD_REGION={NIFCLOUD_HOST.partition('.')[0]}",
        _endpoint(config),
        f"NIFCLOUD_CA_FILE={paths.nifcloud / 'ca.crt'}",
    )
    text = "\n".join(lines) + "\n"
    with editing(user_file(clouds_file, config)) as opened:
        if opened.read() != text:
            opened.write(text)


def _endpoint(config: LocalCloudConfig) -> str:
    return f"NIFCLOUD_ENDPOINT=https://{config.address}"


def remove(clouds_file: Path, config: LocalCloudConfig) -> None:
    """Take the user's file away, if it leads to this cloud."""
    file = user_file(clouds_file, config)
    if not file.exists():
        return
    with editing(file) as opened:
        if _endpoint(config) in (opened.read() or "").splitlines():
            opened.remove()

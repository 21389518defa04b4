"""The cluster's authorities and keys, made before the cluster is: every join can pin them, and nobody fetches anything.

Folder ``pki/`` of the record, laid out as ``/etc/kubernetes/pki`` on the control plane. Always holds: what exists is kept (a
pair counts as made when its certificate is there, which is written last); keys are P-256, small and quick, and never leave
the record but encrypted in the control plane's user data.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from moyai.core import yamltext
from moyai.core.clock import Clock
from moyai.core.files import write_private
from moyai.plan.certificates import Life

#: Files of the control plane's folder /etc/kubernetes/pki that are made here; kubeadm makes the rest from them.
AUTHORITIES = {"ca": "kubernetes", "front-proxy-ca": "front-proxy-ca", "etcd/ca": "etcd-ca"}
#: Files that only a cluster has whose authorities were rotated: the certificate of the new one that the old one has signed, and
#: the one that signs, where ``ca.crt`` has several.
CROSS, SIGNING = "cross-ca.crt", "signing-ca.crt"
OF_ROTATION = (CROSS, SIGNING)
YEARS = 10
#: A name that kubeadm puts into the certificate of every API server.
API_NAME = "kubernetes"
#: Certificates begin a while ago, because machines' clocks differ.
LEEWAY = timedelta(minutes=10)
PBKDF2_ROUNDS = 100_000


@dataclass(frozen=True)
class Pki:
    """``files``: name below the folder (``ca.crt``, ``etcd/ca.key`` …) → content."""

    folder: Path
    files: dict[str, bytes]

    @property
    def ca(self) -> bytes:
        return self.files["ca.crt"]


def ensure(folder: Path, clock: Clock) -> Pki:
    """The cluster's authorities and service account key; what is missing is made."""
    files: dict[str, bytes] = {}
    for name, common_name in AUTHORITIES.items():
        crt, key = folder / f"{name}.crt", folder / f"{name}.key"
        if not crt.exists():
            private = ec.generate_private_key(ec.SECP256R1())
            write_private(key, pem(private))
            write_private(crt, new_authority(private, common_name, now=clock.now()))
        files[f"{name}.crt"], files[f"{name}.key"] = crt.read_bytes(), key.read_bytes()
    public, private_file = folder / "sa.pub", folder / "sa.key"
    if not public.exists():
        account = ec.generate_private_key(ec.SECP256R1())
        write_private(private_file, pem(account))
        write_private(public, public_pem(pem(account)))
    files["sa.pub"], files["sa.key"] = public.read_bytes(), private_file.read_bytes()
    files |= {name: (folder / name).read_bytes() for name in OF_ROTATION if (folder / name).exists()}
    return Pki(folder, files)


def public_pem(private: bytes) -> bytes:
    """The public key to a private one."""
    key = serialization.load_pem_private_key(private, None)
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def admin_kubeconfig(pki: Pki, *, name: str, server: str, clock: Clock) -> str:
    """A kubeconfig for the cluster's administrator, with a client certificate of its own that the authority signs here.

    The API is believed by a name that kubeadm puts into its certificate: its address outside may change.
    """
    private = ec.generate_private_key(ec.SECP256R1())
    certificate = _client_certificate(pki, private, user="moyai-admin", group="system:masters", now=clock.now())
    login = ClientLogin(f"{name}-admin", certificate, pem(private))
    return kubeconfig_of(pki.ca, login, name=name, server=server, context=name)


@dataclass(frozen=True)
class ClientLogin:
    """A user of a kubeconfig, with his certificate and its key, PEM."""

    user: str
    certificate: bytes
    key: bytes = field(repr=False)


def kubeconfig_of(ca: bytes, login: ClientLogin, *, name: str, server: str, context: str) -> str:
    """A kubeconfig of one cluster and one user. ``name``: the cluster's."""
    cluster = {"server": server, "tls-server-name": API_NAME, "certificate-authority-data": _b64(ca)}
    user = {"client-certificate-data": _b64(login.certificate), "client-key-data": _b64(login.key)}
    return yamltext.dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": login.user, "user": user}],
            "contexts": [{"name": context, "context": {"cluster": name, "user": login.user}}],
        },
    )


def certificate_request(user: str, groups: Sequence[str]) -> tuple[bytes, bytes]:
    """(a new private key, the request for a client certificate with it), PEM."""
    private = ec.generate_private_key(ec.SECP256R1())
    named = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    subject = x509.Name([*named, x509.NameAttribute(NameOID.COMMON_NAME, user)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(private, hashes.SHA256())
    return pem(private), request.public_bytes(serialization.Encoding.PEM)


def kubelet_certificate(pki: Pki, node: str, *, now: datetime) -> str:
    """A client certificate for the kubelet of this node, with its key, as the kubelet has them in one file."""
    private = ec.generate_private_key(ec.SECP256R1())
    certificate = _client_certificate(pki, private, user=f"system:node:{node}", group="system:nodes", now=now)
    return (certificate + pem(private)).decode()


def life(certificate: bytes) -> Life:
    """From when until when a certificate counts, PEM or DER. ValueError for something else."""
    read = _read(certificate)
    return Life(read.not_valid_before_utc, read.not_valid_after_utc)


def dns_names(certificate: bytes) -> frozenset[str]:
    """The names that a certificate is for, PEM or DER; empty where it has none. ValueError for something else."""
    try:
        known = _read(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(known.get_values_for_type(x509.DNSName))


def _read(certificate: bytes) -> x509.Certificate:
    pem = b"-----BEGIN CERTIFICATE-----" in certificate
    return x509.load_pem_x509_certificate(certificate) if pem else x509.load_der_x509_certificate(certificate)


#: Files of the keys that nodes are logged in to with; the second where a cloud takes no other kind.
LOGIN_KEY, RSA_LOGIN_KEY = "id_ed25519", "id_rsa"


def ensure_ssh_key(folder: Path, name: str = LOGIN_KEY) -> tuple[Path, str]:
    """(private key file, public key line) of the key that nodes are logged in to with, or of another one. ``name``: the
    file's."""
    private_file, public_file = folder / name, folder / f"{name}.pub"
    if not public_file.exists():
        key = (
            rsa.generate_private_key(public_exponent=65537, key_size=3072)
            if name == RSA_LOGIN_KEY
            else ed25519.Ed25519PrivateKey.generate()
        )
        write_private(
            private_file,
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()),
        )
        line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        write_private(public_file, line + b" moyai\n")
    return private_file, public_file.read_text(encoding="ascii").strip()


def seal(content: bytes, passphrase: str) -> str:
    """Two lines of text: the tag (HMAC-SHA256, hexadecimal), and the encrypted content as ``openssl enc -aes-256-cbc -pbkdf2
    -iter 100000 -md sha256 -a -A`` writes it. The tag covers the second line: a change is noticed before anything is decrypted.
    """
    salt = os.urandom(8)
    derived = PBKDF2HMAC(hashes.SHA256(), 48, salt, PBKDF2_ROUNDS).derive(passphrase.encode())
    padder = padding.PKCS7(128).padder()
    padded = padder.update(content) + padder.finalize()
    encryptor = Cipher(algorithms.AES(derived[:32]), modes.CBC(derived[32:])).encryptor()
    packed = base64.b64encode(b"Salted__" + salt + encryptor.update(padded) + encryptor.finalize())
    tag = hmac.new(hashlib.sha256(b"moyai tag " + passphrase.encode()).digest(), packed, hashlib.sha256).hexdigest()
    return f"{tag}\n{packed.decode()}"


def new_authority(private: ec.EllipticCurvePrivateKey, common_name: str, *, now: datetime) -> bytes:
    """The certificate (PEM) of an authority that signs itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = _builder(name, name, public=private.public_key(), now=now, life=timedelta(days=365 * YEARS))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
    # kubeadm's own authorities carry their name as a DNS name, and Go's verifier then finds chains quicker
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
    return builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _client_certificate(pki: Pki, private: ec.EllipticCurvePrivateKey, *, user: str, group: str, now: datetime) -> bytes:
    authority = x509.load_pem_x509_certificate(pki.ca)
    authority_key = serialization.load_pem_private_key(pki.files["ca.key"], None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, group), x509.NameAttribute(NameOID.COMMON_NAME, user)])
    builder = _builder(subject, authority.subject, public=private.public_key(), now=now, life=timedelta(days=365))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    known = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = builder.add_extension(known, critical=False)
    return builder.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name, issuer: x509.Name, *, public: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LEEWAY)
        .not_valid_after(now + life)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=True,
        key_cert_sign=authority,
        crl_sign=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The private key, unencrypted."""
    # the traditional form: what kubeadm itself writes
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()

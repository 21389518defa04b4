"""What the record's folder ``pki`` and its encryption key are at each stage of a rotation.

The folder is what machines have, those that run and those that are made meanwhile: ``machine_keys.py`` brings the first to it,
user data the others. Always holds: the new key is on disk before anything trusts it; each call may come again after a kill at
any place and comes to the same end, since it looks at the files first.

The new authority is also signed by the old one (``cross-ca.crt``). The API server shows that certificate behind its own, so
that a program that has read the old authority and never reads it again still trusts the API.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from moyai.bootstrap import pki
from moyai.bootstrap.api_server import encryption_keys, new_encryption_key
from moyai.core.files import write_private
from moyai.plan.rotation import Rotated, Rotation, RotationStage

#: Below ``pki``: what comes, until it is used.
_NEXT = "next"


def advance(folder: Path, rotation: Rotation) -> None:
    """Bring the folder ``pki`` to the stage of ``rotation``. What an encryption key needs is ``encryption_at``."""
    if rotation.what is Rotated.AUTHORITIES:
        for name, common_name in pki.AUTHORITIES.items():
            _authority(folder, name, rotation=rotation, common_name=common_name)
        first = _certificates(folder / "ca.crt")[0]
        # the controller manager's signer takes one certificate, no bundle
        write_private(folder / pki.SIGNING, _pem(first))
    elif rotation.what is Rotated.ACCOUNT_KEY:
        _account_key(folder, rotation.stage)
    if rotation.stage is RotationStage.DROP:
        for left in sorted((folder / _NEXT).rglob("*"), reverse=True):
            left.rmdir() if left.is_dir() else left.unlink()


def encryption_at(keys: str, rotation: Rotation, *, new: str = "") -> str:
    """The keys of the API server at this stage, the one that writes first. ``keys``: as on record. ``new``: drawn here where
    none is given."""
    name = f"moyai-{rotation.stamp}"
    known = dict(encryption_keys(keys))
    known.setdefault(name, new or new_encryption_key())
    mine = f"{name}:{known.pop(name)}"
    others = [f"{one}:{key}" for one, key in known.items()]
    if rotation.stage is RotationStage.TRUST:
        return ",".join((*others, mine))
    return ",".join((mine, *others)) if rotation.stage is RotationStage.USE else mine


# ---- authorities


def _authority(folder: Path, name: str, *, rotation: Rotation, common_name: str) -> None:
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    next_certificate, next_key = folder / _NEXT / f"{name}.crt", folder / _NEXT / f"{name}.key"
    if rotation.stage is RotationStage.TRUST and not next_certificate.exists():
        private = ec.generate_private_key(ec.SECP256R1())
        write_private(next_key, pki.pem(private))
        # a name of its own: clients that look an authority up by its name find the right one
        text = f"{common_name}-{rotation.stamp}"
        write_private(next_certificate, pki.new_authority(private, text, now=rotation.moment))
    if not next_certificate.exists():
        return  # a killed run has dropped the old one already
    new = _certificates(next_certificate)[0]
    old = [one for one in _certificates(certificate) if one != new]
    if rotation.stage is RotationStage.TRUST:
        if name == "ca":
            _keep_cross(folder / pki.CROSS, old[0], key=key.read_bytes(), new=new)
        wanted = [*old, new]
    elif rotation.stage is RotationStage.USE:
        write_private(key, next_key.read_bytes())
        wanted = [new, *old]
    else:
        write_private(key, next_key.read_bytes())
        wanted = [new]
    write_private(certificate, b"".join(map(_pem, wanted)))


def _keep_cross(file: Path, authority: x509.Certificate, *, key: bytes, new: x509.Certificate) -> None:
    """Those of earlier rotations stay: a program may still trust the first authority alone."""
    known = [one for one in _certificates(file) if one.not_valid_after_utc > new.not_valid_before_utc] if file.exists() else []
    if not any(one.public_key() == new.public_key() for one in known):
        write_private(file, b"".join(map(_pem, (_cross(authority, key, new=new), *known))))


def _cross(authority: x509.Certificate, key: bytes, *, new: x509.Certificate) -> x509.Certificate:
    """The new authority, signed by the old one."""
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    builder = x509.CertificateBuilder().subject_name(new.subject).issuer_name(authority.subject)
    builder = builder.public_key(new.public_key()).serial_number(x509.random_serial_number())
    ends = min(new.not_valid_after_utc, authority.not_valid_after_utc)
    builder = builder.not_valid_before(new.not_valid_before_utc).not_valid_after(ends)
    for one in new.extensions:
        builder = builder.add_extension(one.value, critical=one.critical)
    known = x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key())
    return builder.add_extension(known, critical=False).sign(private, hashes.SHA256())


def _certificates(file: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(file.read_bytes())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


# ---- the key of service accounts

_END = b"-----END PUBLIC KEY-----\n"


def _account_key(folder: Path, stage: RotationStage) -> None:
    """``sa.key`` signs; ``sa.pub`` has the public keys of all whose tokens count."""
    signs, known, coming = folder / "sa.key", folder / "sa.pub", folder / _NEXT / "sa.key"
    if stage is RotationStage.TRUST and not coming.exists():
        write_private(coming, pki.pem(ec.generate_private_key(ec.SECP256R1())))
    if not coming.exists():
        return
    new = pki.public_pem(coming.read_bytes())
    old = [one + _END for one in known.read_bytes().split(_END)[:-1] if one + _END != new]
    if stage is not RotationStage.TRUST:
        write_private(signs, coming.read_bytes())
    wanted = {RotationStage.TRUST: [*old, new], RotationStage.USE: [new, *old]}.get(stage, [new])
    write_private(known, b"".join(wanted))

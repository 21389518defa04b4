"""When a cluster's certificates and credentials end, as far as it can be known without logging in to a machine.

Always holds: an end that was read is distinguished from one that follows from another. kubeadm makes the control plane's leaf
certificates in one go, and `kubeadm certs renew all` renews them in one go: so they end when the API server's own does.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from moyai.bootstrap import pki
from moyai.core.errors import MoyaiError
from moyai.core.yamlread import read_one
from moyai.kube.quick import KubeApi
from moyai.plan.certificates import YEAR, Life

#: How long before its end a credential is reported.
_EXPIRY_NOTICE = timedelta(days=30)
#: How an end is known: from the files on record, from the TLS handshake, or from another certificate that was made with it.
Source = Literal["record", "handshake", "derived"]
#: Who renews a certificate before it ends.
Renewal = Literal["moyai up", "the control plane's machine", "moyai certificates rotate-ca"]


@dataclass(frozen=True)
class CertificateStatus:
    """``begins`` and ``ends``: ISO 8601, UTC. ``days_left``: whole days, below zero after the end."""

    name: str
    begins: str
    ends: str
    days_left: int
    source: Source
    renewed_by: Renewal


@dataclass(frozen=True)
class Certificate:
    """``hosts``: the names in the certificate that answered; the machine that has it is among them."""

    name: str
    life: Life
    source: Source
    renewed_by: Renewal
    hosts: frozenset[str] = frozenset()

    def status(self, now: datetime) -> CertificateStatus:
        begins, ends = (moment.isoformat() for moment in (self.life.begins, self.life.ends))
        return CertificateStatus(self.name, begins, ends, self.life.left(now).days, self.source, self.renewed_by)

    def problem(self, now: datetime, *, control_planes: Sequence[str]) -> str:
        """What is wrong and what to do about it; empty while nothing is. ``control_planes``: their machines; of several,
        the one that has the certificate is named."""
        ended = self.life.left(now) <= timedelta()
        fact = f"certificate {self.name} {'ended' if ended else 'ends'} on {self.life.end_day}"
        if self.renewed_by == "moyai up":
            return f"{fact}: `moyai up` renews it" if self.life.due(now) else ""
        if self.renewed_by == "moyai certificates rotate-ca":
            # what it signs from now on would outlive it
            outlived = self.life.left(now) < YEAR
            return f"{fact}: `moyai certificates rotate-ca` replaces it" if outlived else ""
        if self.source == "derived" or not self.life.overdue(now):
            return ""
        machine = next((one for one in control_planes if one in self.hosts), next(iter(control_planes), ""))
        return (
            f"{fact} and was not renewed by its machine: `moyai certificates renew` does it while the API answers; "
            f"`moyai ssh {machine}`, there `sudo systemctl status moyai-certificates` says why; a machine of an earlier "
            "version of moyai has no such unit: `sudo kubeadm certs renew all` and a restart of the machine do it"
        )


def credential_problem(name: str, ends: datetime | None, *, now: datetime) -> str:
    """What is wrong with a credential's end; empty while it is far away, or where there is none."""
    if ends is None or ends - now > _EXPIRY_NOTICE:
        return ""
    verb = "ends" if ends > now else "ended"
    return (
        f"credential {name} {verb} on {ends:%Y-%m-%d}, and the cluster needs it: `moyai credentials rotate` makes another one"
    )


def known(folder: Path, api: KubeApi | None, *, timeout: float) -> tuple[Certificate, ...]:
    """The certificates of a cluster whose record is in ``folder``; what cannot be read is left out."""
    return (*_recorded(folder), *_served(api, timeout))


def kubeconfig_life(folder: Path) -> Life | None:
    """Of the administrator's client certificate; None where there is no kubeconfig that can be read."""
    try:
        config = read_one((folder / "kubeconfig").read_text(encoding="utf-8"))
        return pki.life(base64.b64decode(config["users"][0]["user"]["client-certificate-data"]))
    except (OSError, KeyError, IndexError, TypeError, ValueError, binascii.Error):
        return None


def _recorded(folder: Path) -> Iterator[Certificate]:
    life = kubeconfig_life(folder)
    if life is not None:
        yield Certificate("kubeconfig", life, "record", "moyai up")
    for name in pki.AUTHORITIES:
        try:
            yield Certificate(
                f"{name}.crt", pki.life((folder / "pki" / f"{name}.crt").read_bytes()), "record", "moyai certificates rotate-ca"
            )
        except (OSError, ValueError):
            continue


def _served(api: KubeApi | None, timeout: float) -> Iterator[Certificate]:
    if api is None:
        return
    try:
        served = api.serving_certificate(timeout=timeout)
        life, hosts = pki.life(served), pki.dns_names(served)
    except (MoyaiError, ValueError):
        # that the API does not answer is reported where it is asked for its objects
        return
    yield Certificate("apiserver.crt", life, "handshake", "the control plane's machine", hosts)
    yield Certificate("others of the control plane", life, "derived", "the control plane's machine", hosts)
